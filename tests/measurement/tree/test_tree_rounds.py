"""The interval for a whole tree in single scans, each with one thing to tell."""

import itertools

from pytest_membudget.measurement.tree.helper.records import (
    PAGE,
    FilePages,
    Interval,
    Proportional,
    Reading,
    Span,
)
from pytest_membudget.measurement.tree.helper.session import LONGEST_TIMELINE, Session, Timeline
from pytest_membudget.measurement.tree.helper.tree_bounds import Bounds, RunningMaximum, Upper

ROOT = 1
MIB = 1024 * 1024


def rounds(*all_readings, **last):
    bounds = Bounds()
    for readings in all_readings[:-1]:
        bounds.update(readings)
    return bounds.update(all_readings[-1], **last)


def test_what_a_fork_shares_is_counted_once_after_a_closer_look():
    parent = Reading(1, 200 * MIB, fork_group="f")
    child = Reading(2, 210 * MIB, fork_group="f", faults=10 * MIB // PAGE)
    look = Proportional({1: -100 * MIB, 2: -100 * MIB})
    blind = rounds([parent], [parent, child], [parent, child])
    assert (blind.held.low, blind.held.high) == (210 * MIB, 210 * MIB)
    seen = rounds([parent, child], [parent, child], [parent, child], proportional=look)
    assert (seen.held.low, seen.held.high) == (210 * MIB, 210 * MIB + 2 * PAGE)


def test_a_handover_between_two_readings_is_not_counted_twice():
    before = [Reading(1, 0), Reading(2, 100 * MIB), Reading(3, 0)]
    # 3 was given 100 MiB after 2 was read and before 2 gave up its own.
    after = [Reading(1, 0), Reading(2, 100 * MIB), Reading(3, 100 * MIB, faults=100 * MIB // PAGE)]
    found = rounds(before, before, after)
    assert found.held.low == 100 * MIB
    assert found.held.peak == 200 * MIB


def test_a_child_that_nobody_saw_is_in_the_upper_figure():
    found = rounds([Reading(1, MIB)], [Reading(1, MIB)], [Reading(1, MIB, reaped_faults=1000)])
    assert found.missed == 1000 * PAGE
    assert not found.alone
    assert (found.held.low, found.held.peak) == (MIB, MIB + 1000 * PAGE)


def test_what_a_child_that_nobody_saw_may_have_kept_of_its_parent_is_in_the_upper_figure():
    copied = Reading(1, MIB, faults=500, mark=MIB, reaped_faults=3)
    assert rounds([Reading(1, MIB)], [Reading(1, MIB)], [copied]).held.peak == MIB + 503 * PAGE
    dead = Reading(2, 0, faults=3, parent=1)
    first_seen_dead = [Reading(1, MIB, faults=500, mark=MIB), dead]
    assert rounds([Reading(1, MIB)], [Reading(1, MIB)], first_seen_dead).held.peak == MIB + 503 * PAGE
    alone = Reading(1, MIB, faults=500, mark=MIB)
    assert rounds([Reading(1, MIB)], [Reading(1, MIB)], [alone]).held.peak == MIB


def test_a_child_that_was_reaped_between_two_reads_of_one_round_is_not_counted_twice():
    child = Reading(2, 1000 * PAGE, faults=1000)
    both, gone = [Reading(1, MIB), child], [Reading(1, MIB)]
    found = rounds(both, both, gone, [Reading(1, MIB, reaped_faults=1010)])
    assert found.held.peak == MIB + 10 * PAGE


def test_what_it_took_after_its_last_reading_is_on_top_of_what_it_had():
    bounds, session = Bounds(), Session(0.0, ROOT)
    session.begin_alone(bounds.update([Reading(ROOT, MIB)]), [Reading(ROOT, MIB)], MIB)
    child = Reading(2, 1000 * PAGE, faults=1000)
    reaped = Reading(ROOT, MIB, reaped_faults=1400)
    for at_s, readings in enumerate([[Reading(ROOT, MIB), child], [Reading(ROOT, MIB)], [reaped], [reaped]]):
        session.update(at_s, bounds.update(readings), readings)
    assert session.peak_high == 1400 * PAGE


def test_what_a_program_takes_is_not_counted_for_who_called_exec_too():
    before = [Reading(1, 10 * MIB, fork_group="f"), Reading(2, 0, fork_group="f")]
    after = [before[0], Reading(2, 20 * MIB, faults=20 * MIB // PAGE + 5)]
    assert rounds(before, before, after).held.peak == 30 * MIB + 10 * PAGE


def test_two_children_that_were_reaped_so_one_after_the_other_are_not_counted_twice():
    children = [Reading(2, 1000 * PAGE, faults=1000), Reading(3, 900 * PAGE, faults=900)]
    roots = [Reading(1, MIB, reaped_faults=faults) for faults in (0, 1000, 1900)]
    all_three = [roots[0], *children]
    without_one, alone = [roots[0], children[1]], [roots[1]]
    assert rounds(all_three, all_three, without_one, alone, [roots[2]]).held.peak == MIB


CHURN = [
    [
        Reading(1, 200 * MIB, fork_group="f"),
        Reading(2, 220 * MIB, fork_group="f", faults=at * 20 * MIB // PAGE),
    ]
    for at in range(1, 6)
]
STILL = Proportional({1: -100 * MIB, 2: -100 * MIB})  # what was forked is shared as ever


def crest_of(readings, *, looked_at, forking=False):
    bounds, crest = Bounds(), RunningMaximum()
    for at, round_ in enumerate(readings):
        look = Proportional(STILL.correction, forking=forking) if at == looked_at else None
        interval = bounds.update(round_, proportional=look)
        if at:
            crest.add(interval, interval.held.peak)
    return crest.value


def test_what_a_fork_takes_and_gives_back_all_the_time_counts_once_after_a_look():
    unlooked = crest_of([*CHURN, CHURN[-1], CHURN[-1]], looked_at=None)
    assert unlooked > 400 * MIB  # every fault may have been the copy of a page that its parent keeps
    assert crest_of([*CHURN, CHURN[-1], CHURN[-1]], looked_at=5) < 245 * MIB


def test_what_a_newborn_fork_had_and_gave_up_before_its_first_reading_is_in_the_upper_figure():
    # It was forked with 300 MiB, added 100 MiB, and then gave up these and 200 MiB of what it was forked with.
    parent = Reading(1, 300 * MIB, fork_group="f")
    older = Reading(2, 50 * MIB, fork_group="f")
    for elders, excess in ([parent], 100 * MIB), ([older, parent], 150 * MIB):
        newborn = Reading(3, 100 * MIB, fork_group="f", faults=100 * MIB // PAGE)
        look = Proportional({1: -excess, 2: 0, 3: 0})
        bounds, highest = Bounds(), RunningMaximum()
        for at, readings in enumerate((elders, elders, [*elders, newborn], *[[*elders, newborn]] * 2)):
            interval = bounds.update(readings, proportional=look if at == 3 else None)
            highest.add(interval, interval.held.peak)
        assert highest.value >= 400 * MIB


def test_a_look_that_a_fork_got_into_tells_nothing():
    child = [*CHURN[-1], Reading(3, 200 * MIB, fork_group="f", faults=1)]
    assert crest_of([*CHURN, CHURN[-1], CHURN[-1]], looked_at=5, forking=True) > 400 * MIB
    assert crest_of([*CHURN, CHURN[-1], child], looked_at=5) > 400 * MIB


def test_what_comes_while_a_process_is_read_is_in_both_figures():
    found = rounds([Reading(1, 0)], [Reading(1, 0)], [Reading(1, 50 * PAGE, faults=20, late_faults=40)])
    assert (found.held.low, found.held.peak) == (0, 60 * PAGE)


def test_shared_memory_that_is_mapped_before_its_faults_are_counted_is_not_counted_as_private_too():
    before = [Reading(1, MIB, fork_group="f"), Reading(2, MIB, fork_group="f")]
    early = [before[0], Reading(2, MIB, shmem=100 * PAGE, faults=40, late_faults=60, fork_group="f")]
    then = [before[0], Reading(2, MIB, shmem=100 * PAGE, faults=100, fork_group="f")]
    assert rounds(before, before, early, then).held.peak == 2 * MIB + 100 * PAGE


def test_shared_memory_that_everybody_maps_is_limited_by_its_own_size():
    before = [Reading(1, 0, shmem=150 * MIB), Reading(2, 0), Reading(3, 0)]
    after = [Reading(pid, 0, shmem=150 * MIB, faults=150 * MIB // PAGE) for pid in (1, 2, 3)]
    assert rounds(before, before, after).held.high == 450 * MIB
    limited = rounds(before, before, after, shmem_limit=150 * MIB)
    assert (limited.held.high, limited.held.peak) == (150 * MIB, 300 * MIB)


def test_the_last_faults_of_a_process_that_was_seen_are_no_other_process():
    before = [Reading(1, MIB), Reading(2, MIB, faults=100)]
    gone = [Reading(1, MIB)]  # waited for after the root was read: on its account in the next scan
    found = rounds(before, before, gone, [Reading(1, MIB, reaped_faults=118)])
    assert (found.missed, found.overdue) == (0, 18 * PAGE)


def test_shared_memory_that_takes_the_place_of_as_much_is_not_what_the_others_share():
    together = [Reading(1, 0, shmem=150 * MIB), Reading(2, 0, shmem=150 * MIB)]
    apart = [together[0], Reading(2, 0, shmem=150 * MIB, faults=150 * MIB // PAGE, swapped=150 * MIB)]
    look = Proportional({}, {1: 75 * MIB, 2: 75 * MIB})
    bounds = Bounds()
    bounds.update(together)
    bounds.update(together, proportional=look, shmem_limit=150 * MIB)
    assert bounds.update(apart, shmem_limit=300 * MIB).held.high == 300 * MIB


def test_shared_memory_that_comes_to_be_shared_is_proven_no_more():
    apart = [Reading(1, 0, shmem=150 * MIB), Reading(2, 0, shmem=150 * MIB)]
    together = [apart[0], Reading(2, 0, shmem=150 * MIB, faults=150 * MIB // PAGE, swapped=150 * MIB)]
    look = Proportional({}, {1: 150 * MIB, 2: 150 * MIB})
    bounds = Bounds()
    bounds.update(apart)
    assert bounds.update(apart, proportional=look).held.low == 300 * MIB
    assert bounds.update(together, shmem_limit=150 * MIB).held.low == 150 * MIB


def test_a_huge_page_may_come_with_one_fault():
    found = rounds([Reading(1, 0)], [Reading(1, 0)], [Reading(1, 0, faults=1)], huge_pages=1)
    assert found.held.peak == 2 * MIB + PAGE


def test_a_process_that_was_there_leaves_the_start_with_what_it_held():
    there = [Reading(1, 10 * MIB), Reading(2, 300 * MIB)]
    bounds = Bounds()
    for _ in range(2):
        interval = bounds.update(there)
    session = Session(0.0, ROOT)
    session.begin_among(interval, there)
    assert session.start_bytes == 310 * MIB
    grown = [Reading(1, 60 * MIB, faults=50 * MIB // PAGE)]
    for at_s in (1, 2):
        session.update(at_s, bounds.update(grown), grown)
    assert session.start_bytes == 10 * MIB
    assert session.peak_low == 50 * MIB


def test_a_timeline_is_as_fine_everywhere_however_long_it_becomes():
    timeline = Timeline()
    for at in range(1025):
        timeline.add(float(at), at)
    times = [at_s for at_s, _ in timeline.points()]
    assert {later - earlier for earlier, later in itertools.pairwise(times)} == {32.0}


def test_a_timeline_keeps_its_peak_in_64_points():
    timeline = Timeline()
    for at in range(10_000):
        timeline.add(at / 1000, 7_777 if at == 4321 else at % 100)
    points = timeline.points()
    assert 16 < len(points) <= LONGEST_TIMELINE
    assert max(size for _, size in points) == 7_777
    assert points == sorted(points)


def test_what_a_look_proved_stays_proven_while_nothing_moves():
    both = [Reading(1, 200 * MIB, fork_group="f"), Reading(2, 150 * MIB, fork_group="f")]
    look = Proportional({1: -50 * MIB, 2: -50 * MIB})
    bounds = Bounds()
    bounds.update(both)
    for proportional in (look, None, None):
        assert bounds.update(both, proportional=proportional).held.low == 250 * MIB
    alone = [both[0]]
    assert bounds.update(alone).held.low == 200 * MIB  # what it shared is its own now


def round_of(**fields):
    usual = {"file_added": 0, "alone": False, "missed": 0, "moving": 0, "leaving": {}}
    return Interval(Span(0, 0, 0), Span(0, 0, 0), **{**usual, **fields})


def test_a_later_sample_lowers_what_was_counted_more_than_once():
    highest = RunningMaximum()
    highest.add(round_of(counted_twice=100), 300)  # 400 as a plain sum
    assert highest.value == 300
    highest.add(round_of(counted_twice=100, excess=150, excess_left=120), 300)
    assert highest.value == 300  # a sample counts one scan later, when no child has appeared
    highest.add(round_of(), 0)
    assert highest.value == 280  # by the scan's end only 120 of the 400 surely still were


def test_a_sample_that_a_fork_has_spoilt_lowers_nothing():
    highest = RunningMaximum()
    highest.add(round_of(counted_twice=100), 300)
    highest.add(round_of(counted_twice=100, excess=150, excess_left=120), 300)
    highest.add(round_of(forked=True), 0)
    assert highest.value == 300


def test_a_sample_does_not_reach_back_beyond_a_fork():
    highest = RunningMaximum()
    highest.add(round_of(counted_twice=100), 300)
    highest.add(round_of(forked=True), 10)
    highest.add(round_of(excess=400, excess_left=400), 10)
    highest.add(round_of(), 0)
    assert highest.value == 300


def test_of_the_highest_sum_and_the_sum_of_the_highest_the_lower_one_counts():
    upper = Upper()
    # Memory first and files afterwards: never both at once. What the tree has added of files is at most 60.
    for held, files in ((100, 20), (10, 80)):
        spans = Span(0, held, held), Span(0, files, files)
        upper.add(round_of(file_added=60)._replace(held=spans[0], file=spans[1]), 5, 20, 60)
    assert upper.value == 95  # 100 above 5, beside the files of the start
    upper.add(round_of(overdue=30), 5, 20, 60)
    assert upper.value == 95  # 5 of memory and 60 of files, and 30 that came on the account a scan late
    upper.add(round_of(overdue=130), 5, 20, 60)
    assert upper.value == 105


def test_files_that_were_mapped_beside_the_memory_are_in_both():
    upper = Upper()
    for held, files in ((100, 20), (90, 50)):
        spans = Span(0, held, held), Span(0, files, files)
        upper.add(round_of(file_added=60)._replace(held=spans[0], file=spans[1]), 5, 20, 60)
    assert upper.value == 115  # the second scan: 85 of memory and 30 of files


def test_a_root_alone_is_left_to_the_kernels_own_mark():
    upper = Upper()
    upper.add(round_of(alone=True)._replace(held=Span(0, 900, 900)), 100, 0, 0)
    assert upper.value == 0
    upper.raise_to(40)
    assert upper.value == 40


def test_one_fault_maps_up_to_16_pages_of_a_file():
    mapped = Reading(1, 0, file=160 * PAGE, faults=160)
    assert rounds([Reading(1, 0)], [Reading(1, 0)], [mapped]).held.peak == 150 * PAGE


def test_a_process_that_a_sample_left_out_shares_none_of_its_shared_memory_and_perhaps_all_of_its_files():
    both = [Reading(1, 0, shmem=100 * MIB, file=20 * MIB), Reading(2, 0, shmem=50 * MIB, file=30 * MIB)]
    look = Proportional({}, {1: 100 * MIB}, {1: 10 * MIB})
    found = rounds(both, both, proportional=look)
    assert (found.held.low, found.file.low, found.low) == (150 * MIB, 30 * MIB, 180 * MIB)


def test_a_count_of_files_holds_while_no_process_maps_more():
    bounds, both = Bounds(), [Reading(1, 0, file=20 * MIB), Reading(2, 0, file=20 * MIB)]
    bounds.update(both)
    assert bounds.update(both, file_pages=FilePages(21 * MIB, 22 * MIB)).file.high == 22 * MIB
    assert bounds.update(both).file.high == 22 * MIB
    more = [both[0], Reading(2, 0, file=25 * MIB, faults=10)]
    assert bounds.update(more).file.high == 27 * MIB
