"""One open measurement, and the samples it is worth: from scripted readings, without a kernel."""

import pytest

from pytest_membudget.measurement.tree.helper import sampling
from pytest_membudget.measurement.tree.helper.messages import Start
from pytest_membudget.measurement.tree.helper.records import PAGE, Interval, Reading, Span
from pytest_membudget.measurement.tree.helper.sampling import PssSampling, sample_proportional
from pytest_membudget.measurement.tree.helper.session import Session
from pytest_membudget.measurement.tree.helper.shared_memory import SharedReading
from pytest_membudget.measurement.tree.helper.tree_bounds import Bounds

MIB, GIB = 1024**2, 1024**3
ROOT, CHILD, OTHER = 1, 2, 3


def interval(held, file=(0, 0), *, file_added=0, moving=0):
    low, high = held
    return Interval(
        Span(low, high, high),
        Span(*file, file[1]),
        file_added=file_added,
        alone=False,
        missed=0,
        moving=moving,
        leaving={},
    )


def test_children_that_came_and_went_before_the_helper_looked_are_in_the_upper_figure():
    session = Session(0.0, ROOT)
    session.missed_before(Reading(ROOT, MIB, faults=30, reaped_faults=70), Start(MIB, 0, 20, 10))
    assert (session.missed, session.peak_high) == (50 * PAGE, 70 * PAGE)


def test_where_no_child_was_reaped_nothing_was_missed():
    session = Session(0.0, ROOT)
    session.missed_before(Reading(ROOT, MIB, faults=30, reaped_faults=20), Start(MIB, 0, 20, 10))
    assert (session.missed, session.peak_high) == (0, 0)


def test_a_process_of_the_start_that_ends_leaves_the_start():
    bounds, session = Bounds(), Session(0.0, ROOT)
    both = [Reading(ROOT, 10 * MIB), Reading(CHILD, 40 * MIB)]
    bounds.update(both)
    session.begin_among(bounds.update(both), both)
    assert session.start_bytes == 50 * MIB
    alone = [Reading(ROOT, 30 * MIB, faults=20 * MIB // PAGE)]
    for at_s in (0.1, 0.2):
        session.update(at_s, bounds.update(alone), alone)
    assert session.start_bytes == 10 * MIB
    assert session.peak_low == 20 * MIB


def test_what_left_lowers_the_start_that_the_upper_figure_is_counted_from():
    bounds, session = Bounds(), Session(0.0, ROOT)
    start = [Reading(ROOT, 10 * MIB), Reading(CHILD, 40 * MIB), Reading(OTHER, 5 * MIB)]
    bounds.update(start)
    session.begin_among(bounds.update(start), start)
    grown = [Reading(ROOT, 30 * MIB, faults=20 * MIB // PAGE), Reading(OTHER, 5 * MIB)]
    for at_s in (0.1, 0.2, 0.3):
        session.update(at_s, bounds.update(grown), grown)
    assert session.peak_low == 20 * MIB
    assert session.peak_high == 60 * MIB  # the child may have been there until the root had grown


@pytest.mark.parametrize(("high_mib", "may"), [(10, False), (20, True)])
def test_a_sample_is_wanted_where_the_upper_figure_lies_above_the_proven_peak(high_mib, may):
    session = Session(0.0, ROOT)
    start = interval((5 * MIB, 5 * MIB), (MIB, MIB))
    session.begin_among(start, [Reading(ROOT, 5 * MIB, file=MIB)])
    session.peak_low = 5 * MIB
    assert session.could_rise(interval((5 * MIB, high_mib * MIB), (MIB, MIB))) == may


def test_files_of_the_start_are_not_what_a_sample_could_raise():
    session = Session(0.0, ROOT)
    session.begin_among(interval((MIB, MIB), (50 * MIB, 50 * MIB)), [Reading(ROOT, MIB, file=50 * MIB)])
    assert not session.could_rise(interval((MIB, MIB), (50 * MIB, 50 * MIB), file_added=90 * MIB))
    assert session.could_rise(interval((MIB, MIB), (60 * MIB, 60 * MIB), file_added=90 * MIB))


def test_two_that_map_the_same_hold_at_least_what_the_larger_maps():
    bounds = Bounds()
    readings = [Reading(ROOT, 0, shmem=30 * MIB), Reading(CHILD, 0, shmem=50 * MIB)]
    bounds.update(readings, shmem_limit=10 * MIB)
    found = bounds.update(readings, shmem_limit=10 * MIB).held
    assert (found.low, found.high) == (50 * MIB, 50 * MIB)


class _Clearing:
    """A process that is about to end: its memory shows nowhere, and others may still share it."""

    is_clearing = True


@pytest.mark.parametrize(("processes", "dropped"), [({CHILD: _Clearing()}, True), ({}, False)])
def test_a_sample_beside_a_process_that_clears_its_memory_is_not_believed(processes, dropped):
    found = sample_proportional([Reading(ROOT, MIB), Reading(CHILD, 0)], processes)
    assert found.forking == dropped


@pytest.mark.parametrize(
    ("held", "file", "could_rise", "wanted"),
    [
        ((MIB, MIB), (0, 0), False, False),  # nothing to tell
        ((MIB, MIB), (0, 0), True, True),
        ((MIB, MIB), (0, sampling.FILE_GAP_BYTES), False, False),  # not yet worth it
        ((MIB, MIB), (0, sampling.FILE_GAP_BYTES + 1), False, True),
    ],
)
def test_a_sample_is_worth_its_cost_for_a_peak_or_for_files(held, file, could_rise, wanted):
    readings = [Reading(ROOT, MIB), Reading(CHILD, MIB)]
    assert PssSampling().worthwhile(interval(held, file), readings, could_rise=could_rise) == wanted


def test_files_blur_the_upper_figure_where_they_may_be_counted_too_often():
    session = Session(0.0, ROOT)
    session.begin_among(interval((MIB, MIB), (10 * MIB, 10 * MIB)), [Reading(ROOT, MIB, file=10 * MIB)])
    session.peak_low = 80 * MIB  # an eighth of it is worth a count
    assert not session.files_blur(interval((MIB, MIB), (10 * MIB, 20 * MIB)))
    assert session.files_blur(interval((MIB, MIB), (10 * MIB, 21 * MIB)))
    assert not session.files_blur(interval((MIB, MIB), (20 * MIB, 21 * MIB)))  # they are known well
    assert not session.files_blur(interval((MIB, MIB), (0, 20 * MIB)))  # of these the start had 10 MiB


def test_a_limit_of_the_block_is_exceeded_above_it_and_one_of_the_tree_from_it_on():
    block, tree = Session(0.0, ROOT, 10 * MIB), Session(0.0, ROOT, None, 50 * MIB)
    for size_mib, over in ((10, False), (11, True)):
        block.peak_low = block.last_low = size_mib * MIB
        assert block.over_limit() == block.still_over(interval((MIB, MIB))) == over
    for size_mib, over in ((49, False), (50, True)):
        tree.total_low = size_mib * MIB
        assert tree.over_limit() == tree.still_over(interval((size_mib * MIB, 60 * MIB))) == over
    block.last_low = 9 * MIB  # a child that was killed has gone
    assert block.over_limit()
    assert not block.still_over(interval((9 * MIB, 9 * MIB)))


def test_a_process_of_the_start_has_grown_by_what_it_holds_above_that():
    bounds, session = Bounds(), Session(0.0, ROOT)
    start = [Reading(ROOT, 10 * MIB), Reading(CHILD, 40 * MIB, shmem=5 * MIB)]
    bounds.update(start)
    session.begin_among(bounds.update(start), start)
    assert session.grown(Reading(CHILD, 50 * MIB, shmem=5 * MIB)) == 10 * MIB
    assert session.grown(Reading(CHILD, 30 * MIB)) == 0
    assert session.grown(Reading(OTHER, 7 * MIB)) == 7 * MIB


def test_what_others_never_fell_below_is_their_own_memory_alone():
    bounds, session = Bounds(), Session(0.0, ROOT)
    forks = [Reading(OTHER, 30 * MIB, fork_group="f"), Reading(OTHER + 1, 30 * MIB, fork_group="f")]
    start = [Reading(ROOT, 10 * MIB), Reading(CHILD, 40 * MIB), *forks]
    bounds.update(start)
    session.begin_among(bounds.update(start), start)
    assert session.others_floor == 40 * MIB
    for size_mib in (25, 60):
        later = [start[0], Reading(CHILD, size_mib * MIB), *forks]
        session.update(0.1, bounds.update(later), later)
    assert session.summary().others_floor_bytes == 25 * MIB


def test_each_process_is_listed_with_the_most_that_it_was_seen_to_hold():
    bounds, session = Bounds(), Session(0.0, ROOT)
    ended = Reading(OTHER, 0)
    session.begin_alone(bounds.update([Reading(ROOT, MIB), ended]), [Reading(ROOT, MIB), ended], MIB)
    for size_mib in (5, 3):
        readings = [Reading(ROOT, MIB), Reading(CHILD, size_mib * MIB, file=MIB), ended]
        session.update(0.1, bounds.update(readings), readings)
    assert session.summary().sizes == {
        ROOT: MIB,
        CHILD: 6 * MIB,
    }  # what had ended before is not of this block


@pytest.mark.parametrize(("peak_low", "worthwhile"), [(MIB, 256 * 1024), (100 * MIB, MIB)])
def test_a_sample_is_wanted_for_a_quarter_of_a_mebibyte_or_a_percent(peak_low, worthwhile):
    session = Session(0.0, ROOT)
    session.begin_among(interval((0, 0)), [Reading(ROOT, 0)])
    session.peak_low = peak_low
    assert not session.could_rise(interval((0, peak_low + worthwhile)))
    assert session.could_rise(interval((0, peak_low + worthwhile + 1)))


def test_a_few_pages_of_files_are_not_worth_a_count():
    session = Session(0.0, ROOT)
    session.begin_among(interval((0, 0)), [Reading(ROOT, 0)])
    assert not session.files_blur(interval((0, 0), (0, 256 * 1024)))
    assert session.files_blur(interval((0, 0), (0, 256 * 1024 + 1)))


def test_shared_memory_of_the_start_may_be_one_that_all_map_or_one_of_each():
    session = Session(0.0, ROOT)
    start = [Reading(ROOT, 0, shmem=10 * GIB), Reading(CHILD, 0, shmem=30 * GIB)]
    session.begin_shared(SharedReading(total_bytes=50 * GIB), start)
    now = [start[0], Reading(CHILD, 0, shmem=90 * GIB)]
    for _ in range(2):
        session.update_shared(SharedReading(total_bytes=150 * GIB), now)
    found = session.summary()
    # Of the 100 that were added the tree maps at least 90 - (10 + 30), and at most (10 + 90) - 30.
    assert (found.shared_high_bytes, found.shared_total_low_bytes) == (50 * GIB, 30 * GIB)
