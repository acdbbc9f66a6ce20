"""A fork group of forks is bounded by who made which pages: what a fork had goes with it."""

from scripted_kernel import Kernel

from pytest_membudget.measurement.tree.helper.records import PAGE, Reading
from pytest_membudget.measurement.tree.helper.tree_bounds import Bounds

MIB = 1024 * 1024


def fork(pid, made, *, parent=1, inherited=300 * MIB):
    return Reading(pid, inherited + made, faults=made // PAGE, fork_group="f", parent=parent)


def trunk(anon=300 * MIB, faults=0, reaped=0):
    return Reading(1, anon, faults=faults // PAGE, reaped_faults=reaped // PAGE, fork_group="f")


def watched(*rounds, **options):
    bounds = Bounds(**options)
    for readings in ([trunk()], [trunk()], *rounds[:-1]):
        bounds.update(readings)
    return bounds.update(rounds[-1]).held


def test_forks_one_after_the_other_do_not_add_up():
    forks = [
        round_
        for pid in range(2, 12)
        for round_ in ([trunk(reaped=(pid - 2) * 20 * MIB), fork(pid, made * MIB)] for made in (10, 20))
    ]
    held = watched(*forks)
    assert held.high == 320 * MIB
    assert held.peak == 320 * MIB  # the last one alone
    assert watched(*forks[:-1]).peak == 330 * MIB  # the one before and the last one may have met


def test_what_the_parent_writes_to_stays_with_the_oldest_fork():
    first = [trunk(), fork(2, 0)]
    written = [trunk(faults=50 * MIB), fork(2, 0)]
    assert watched(first, written).high == 350 * MIB
    younger = [trunk(faults=50 * MIB), fork(2, 0), fork(3, 0)]
    assert watched(first, written, younger).high == 350 * MIB
    left = [trunk(faults=50 * MIB), fork(3, 0)]
    assert watched(first, written, younger, left).high == 300 * MIB


def test_what_a_fork_made_may_live_on_in_its_own_fork():
    both = [trunk(), fork(2, 30 * MIB), fork(3, 5 * MIB, parent=2, inherited=330 * MIB)]
    heir = [trunk(), fork(3, 5 * MIB, parent=0, inherited=330 * MIB)]
    assert watched([trunk(), fork(2, 30 * MIB)], both, heir).high == 335 * MIB
    assert watched([trunk(), fork(2, 30 * MIB)], both, heir, [trunk()], [trunk()]).high == 300 * MIB


def test_what_a_dead_fork_made_counts_where_its_own_fork_has_dropped_what_it_had_of_the_trunk():
    first = [trunk(), fork(2, 30 * MIB)]
    both = [*first, fork(3, 5 * MIB, parent=2, inherited=80 * MIB)]
    grandchild = [
        *both[:2],
        fork(3, 5 * MIB, parent=2, inherited=80 * MIB),
        fork(4, 0, parent=3, inherited=85 * MIB),
    ]
    heir = [trunk(), fork(4, 0, parent=0, inherited=85 * MIB)]
    # Both dead ones may live on: the 30 MiB of the first, the 5 MiB of the second.
    assert watched(first, both, [*heir[:1], fork(3, 5 * MIB, parent=0, inherited=80 * MIB)]).high == 335 * MIB
    assert watched(first, both, grandchild, heir).high == 335 * MIB


def test_of_somebody_whose_parent_is_not_known_nothing_is_said():
    lost = [trunk(), fork(2, 30 * MIB), fork(3, 5 * MIB, parent=0, inherited=330 * MIB)]
    gone = [trunk(), fork(3, 5 * MIB, parent=0, inherited=330 * MIB)]
    assert watched([trunk(), fork(2, 30 * MIB)], lost, gone).high >= 335 * MIB


def test_a_root_that_adopts_orphans_is_not_known_to_have_forked_them():
    adopted = fork(3, 0, inherited=330 * MIB)
    rounds = [trunk(), fork(2, 30 * MIB)], [trunk(), fork(2, 30 * MIB), adopted], [trunk(), adopted]
    assert watched(*rounds, adoptive=1).high >= 330 * MIB


def test_a_scripted_kernel_where_forks_come_and_go_is_bounded_tightly():
    kernel, bounds = Kernel(1000), Bounds()
    bounds.update(kernel.readings())
    bounds.update(kernel.readings())
    highest = 0
    for _ in range(20):
        kernel.act("fork", 0, 1)
        for _ in range(4):
            kernel.act("allocate", 1, 25)
            highest = max(highest, bounds.update(kernel.readings()).held.peak)
        kernel.act("end", 1, 1)
        highest = max(highest, bounds.update(kernel.readings()).held.peak)
    assert kernel.truth_peak * PAGE <= highest <= (kernel.truth_peak + 30) * PAGE


def test_what_the_trunk_took_while_it_was_read_is_in_its_peak():
    read_late = Reading(
        1, 300 * MIB, faults=20 * MIB // PAGE, late_faults=10 * MIB // PAGE, fork_group="f"
    )  # it has given both back
    assert watched([trunk(), fork(2, 0)], [read_late, fork(2, 0)]).peak == 330 * MIB
