"""One measurement from scripted figures of this process, of its tree and of its dead children."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_membudget.measurement.tree.combine import (
    MOST_SHARES,
    Own,
    Shared,
    combine,
    of_one_process,
    own_without_end,
    own_without_reset,
)
from pytest_membudget.measurement.tree.helper.messages import Summary
from pytest_membudget.records.measurement import Caveat

PID = 10
CHILD = 11
OWN = Own(start_bytes=100, peak_bytes=150, end_bytes=120)


def tree(**figures):
    usual = {
        "peak_low_bytes": 0,
        "peak_high_bytes": 0,
        "total_low_bytes": 0,
        "start_bytes": 100,
        "end_bytes": 100,
        "interval_s": 0.01,
    }
    return Summary(**{**usual, "seen": [(PID, 150), (CHILD, 40)], "names": [(CHILD, "child")], **figures})


def interval(found):
    return found.peak_bytes, found.peak_upper_bytes


def kinds(found):
    return [caveat.kind for caveat in found.caveat_records]


def test_a_process_alone_has_the_kernels_own_figure():
    found = combine(
        OWN, None, pid=PID, label="load", duration_s=0.5, caveats=[Caveat("not-trimmed")], value="result"
    )
    assert interval(found) == (50, 50)
    assert (found.start_bytes, found.end_bytes, found.total_peak_bytes) == (100, 120, 150)
    assert (found.source, found.processes, found.interval_s) == ("kernel", 1, None)
    assert (found.label, found.duration_s, kinds(found), found.value) == (
        "load",
        0.5,
        ["not-trimmed"],
        "result",
    )


@pytest.mark.parametrize("own", [OWN, Own(start_bytes=100, peak_bytes=90, end_bytes=80)])
def test_the_short_way_of_a_process_alone_gives_the_same(own):
    assert of_one_process(own, "it", 2.0, 7) == combine(
        own, None, pid=PID, label="it", duration_s=2.0, value=7
    )


def test_a_process_alone_that_was_read_a_little_above_its_mark_has_the_kernels_figure_too():
    found = combine(
        OWN, tree(peak_low_bytes=52, peak_high_bytes=52, total_low_bytes=152, seen=[(PID, 152)]), pid=PID
    )
    assert (interval(found), found.source, found.interval_s) == ((52, 52), "kernel", None)
    found = combine(OWN, tree(peak_low_bytes=52, peak_high_bytes=52, total_low_bytes=152), pid=PID)
    assert (interval(found), found.source, found.interval_s) == ((52, 52), "sampled", 0.01)


def test_without_a_reset_a_mark_that_rose_is_the_blocks_peak():
    found = combine(own_without_reset((100, 140), (120, 180)), None, pid=PID)
    assert (interval(found), found.source, found.caveats) == ((80, 80), "kernel", ())


@pytest.mark.parametrize("mark_after", [140, 130])  # 130: somebody else has reset it meanwhile
def test_without_a_reset_a_mark_that_did_not_rise_is_what_cannot_have_been_exceeded(mark_after):
    found = combine(own_without_reset((100, 140), (120, mark_after)), None, pid=PID)
    assert (interval(found), found.source, kinds(found)) == ((20, 40), "sampled", ["mark-not-reset"])


def test_where_memory_cannot_be_read_growth_beyond_the_largest_ever_is_proven():
    found = combine(own_without_reset((0, 140), (0, 180)), None, pid=PID)
    assert (interval(found), found.source, kinds(found)) == ((40, 180), "sampled", ["memory-not-readable"])


def test_where_the_end_cannot_be_read_what_was_known_before_is_proven():
    found = combine(own_without_end(100, 130, 170), None, pid=PID)
    assert (interval(found), found.end_bytes, kinds(found)) == ((30, 70), 100, ["memory-not-readable"])


def test_what_was_swapped_out_meanwhile_is_in_the_upper_figure():
    found = combine(OWN, None, pid=PID, shared=Shared(swapped_bytes=30))
    assert (interval(found), found.source, kinds(found)) == ((50, 80), "sampled", ["swapped"])


def test_the_tree_proves_more_than_this_process_alone():
    found = combine(
        OWN,
        tree(peak_low_bytes=80, peak_high_bytes=95, total_low_bytes=185, end_bytes=130, members=2),
        pid=PID,
    )
    assert interval(found) == (80, 95)
    assert (found.start_bytes, found.end_bytes, found.total_peak_bytes) == (100, 130, 185)
    assert (found.source, found.processes, found.interval_s) == ("sampled", 2, 0.01)


def test_this_processs_own_mark_may_be_more_than_any_reading_of_the_tree():
    found = combine(OWN, tree(peak_low_bytes=20, peak_high_bytes=30, total_low_bytes=140), pid=PID)
    assert (interval(found), found.total_peak_bytes, found.end_bytes) == ((50, 50), 150, 120)
    assert (found.source, found.interval_s) == ("kernel", None)


def test_others_that_were_there_from_the_start_count_with_what_they_never_fell_below():
    there = tree(
        start_bytes=140,
        others_floor_bytes=30,
        peak_low_bytes=10,
        peak_high_bytes=60,
        total_low_bytes=160,
        members=2,
    )
    found = combine(OWN, there, pid=PID)
    assert found.start_bytes == 140
    assert interval(found) == (150 + 30 - 140, 60)
    assert found.total_peak_bytes == 140 + 40
    assert combine(OWN._replace(high_bytes=190), there, pid=PID).peak_upper_bytes == 190 + 30 - 140


def test_what_ended_before_it_could_be_read_is_a_process_and_a_caveat():
    found = combine(OWN, tree(peak_high_bytes=90, missed_bytes=2048), pid=PID)
    assert found.processes == 3
    assert found.caveats == (
        "a process ended before it could be read: its memory, at most 2.00 KiB, is in the upper figure only",
    )


def test_marks_of_living_children_make_it_the_kernels_figure():
    assert (
        combine(OWN, tree(peak_low_bytes=80, peak_high_bytes=95, by_marks_bytes=80), pid=PID).source
        == "kernel"
    )
    assert (
        combine(OWN, tree(peak_low_bytes=80, peak_high_bytes=95, by_marks_bytes=70), pid=PID).source
        == "sampled"
    )


def test_a_dead_childs_mark_proves_its_spike_above_the_start():
    found = combine(OWN, None, pid=PID, child_mark_bytes=180)
    assert (interval(found), found.source, found.processes) == ((80, 80), "kernel", 2)
    assert found.total_peak_bytes == 180


def test_a_mark_that_this_process_may_have_had_itself_proves_nothing():
    assert combine(OWN, None, pid=PID, child_mark_bytes=150).peak_bytes == 50
    assert combine(OWN._replace(high_bytes=200), None, pid=PID, child_mark_bytes=190).peak_bytes == 50
    assert combine(OWN._replace(readable=False), None, pid=PID, child_mark_bytes=900).peak_bytes == 50


def test_what_this_process_held_throughout_is_beside_a_programs_mark_and_not_beside_a_forks():
    seen = tree(floor_bytes=90, hidden_bytes=20)
    assert combine(OWN, seen, pid=PID, child_mark_bytes=171).peak_bytes == 171 + 90 - 100
    assert combine(OWN, seen, pid=PID, child_mark_bytes=170).peak_bytes == 170 - 100


def test_shares_are_the_largest_processes_with_this_one_by_its_own_mark():
    seen = {PID: 120, **{number: number for number in range(20, 60)}}
    shares = combine(OWN, tree(seen=seen, names={59: "last"}), pid=PID).shares
    assert [(share.pid, share.peak_bytes) for share in shares[:2]] == [(PID, 150), (59, 59)]
    assert shares[1].name == "last"
    assert len(shares) == MOST_SHARES


FIGURES = st.lists(st.integers(0, 1000), min_size=8, max_size=8)


@given(FIGURES, st.booleans(), st.booleans())
def test_the_upper_figure_is_never_below_the_proven_one(figures, is_exact, was_alone):
    start, rise, end, low, high, own_high, floor, mark = figures
    own = Own(start, start + rise, end, None if is_exact else own_high)
    seen = tree(
        peak_low_bytes=low,
        peak_high_bytes=high,
        others_floor_bytes=None if was_alone else floor,
        start_bytes=start,
    )
    for found in (combine(own, seen, pid=PID, child_mark_bytes=mark), combine(own, None, pid=PID)):
        assert 0 <= found.peak_bytes <= found.peak_upper_bytes
        assert found.total_peak_bytes >= found.start_bytes + found.peak_bytes
