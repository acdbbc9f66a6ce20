"""File pages that several processes map count once: by a count of each, on the real kernel and by scripted scans."""

import mmap
import os
import sys

import pytest
from tree_programs import MIB, Fork, Holder, settled

from pytest_membudget import measuring
from pytest_membudget.measurement.tree.helper.records import Change, FilePages, Interval, Reading, Span
from pytest_membudget.measurement.tree.helper.sampling import PRESENT, FilePageCounter
from pytest_membudget.measurement.tree.helper.tree_bounds import FileMaximum, Mapped

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="pages are counted on Linux")


def rounds(*sizes, found=None):
    """One more scan for each tuple of what processes 1, 2, … map of files; the last one with what was found."""
    mapped, before = Mapped("file"), {}
    for at, round_ in enumerate(sizes):
        readings = [Reading(pid, 0, file=size) for pid, size in enumerate(round_, 1)]
        last = at == len(sizes) - 1
        span = mapped.update(Change(before, readings, 0), None, None, found if last else None)
        before = {reading.pid: reading for reading in readings}
    return span


@pytest.mark.parametrize(
    ("bits", "counts"),
    [
        ((63, 61), 1),
        ((63, 61, 56), 1),  # mapped by no other process
        ((63, 61, 57), 1),  # write-protected
        ((63,), 0),  # anonymous
        ((62, 61), 0),  # swapped out
        ((61,), 0),
    ],
)
def test_a_page_counts_where_it_is_in_memory_and_of_a_file(bits, counts):
    assert PRESENT[sum(1 << bit for bit in bits) >> 56] == counts


def test_a_count_is_both_bounds_where_nobody_moves():
    alike = (20 * MIB, 18 * MIB)
    assert rounds(alike, alike).high == 38 * MIB
    counted = rounds(alike, alike, found=FilePages(21 * MIB, 22 * MIB))
    assert (counted.low, counted.high) == (21 * MIB, 22 * MIB)


def test_what_moves_while_pages_are_counted_is_in_neither_for_certain():
    moved = rounds((20 * MIB, 18 * MIB), (23 * MIB, 17 * MIB), found=FilePages(21 * MIB, 22 * MIB))
    assert (moved.low, moved.high) == (20 * MIB, 25 * MIB)  # the first has held 20 throughout


def interval(high, *, counted=False, fallen=0):
    return Interval(
        Span(0, 0, 0),
        Span(0, high, high),
        file_added=0,
        alone=False,
        missed=0,
        moving=0,
        leaving={},
        file_counted=counted,
        file_fallen=fallen,
    )


def crest(*intervals):
    found = FileMaximum()
    for each in intervals:
        found.add(each)
    return found.value


def test_a_count_betters_what_was_there_before_it():
    assert crest(interval(38), interval(38)) == 38
    assert crest(interval(38), interval(22, counted=True)) == 22
    assert crest(interval(38), interval(22, counted=True), interval(30)) == 30


def test_what_was_given_up_before_the_count_is_not_bettered_by_it():
    assert crest(interval(38), interval(30, fallen=8), interval(22, counted=True)) == 30
    assert crest(interval(38), interval(22, counted=True, fallen=20)) == 38


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mapped"
    path.write_bytes(b"x" * (16 * MIB))
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ) as block:
        yield block


def read(block, first, last):
    """Touches pages one by one; the kernel may map some more around each."""
    return sum(block[offset] for offset in range(first, last, mmap.PAGESIZE))


@on_linux
@pytest.mark.kernel
def test_the_pages_of_a_mapped_file_are_counted(file):
    def counted():
        from pytest_membudget.measurement.tree.helper.proc_reader import Process

        process = Process(os.getpid())
        reading = process.read()
        process.close()
        return FilePageCounter(set()).take([reading]), reading

    before, _ = counted()
    read(file, 0, 8 * MIB)
    after, reading = counted()
    assert 8 * MIB <= after.union - before.union <= 9 * MIB
    assert after.resident >= reading.file


@on_linux
@pytest.mark.kernel
@pytest.mark.processes
def test_a_file_that_two_processes_map_counts_once(file):
    with measuring() as probe:
        read(file, 0, 16 * MIB)
        forks = [Fork(lambda: read(file, 0, 16 * MIB)) for _ in range(3)]
        settled()
    for fork in forks:
        fork.release()
    m = probe.measurement
    assert 15 * MIB <= m.peak_bytes <= 24 * MIB
    assert 16 * MIB <= m.peak_upper_bytes <= 24 * MIB


@on_linux
@pytest.mark.kernel
@pytest.mark.processes
def test_small_programs_are_known_as_well_as_large_ones():
    with measuring() as probe:
        holders = [Holder(MIB) for _ in range(2)]
        settled()
    for holder in holders:
        holder.release()
    m = probe.measurement
    assert 2 * MIB <= m.peak_bytes <= m.peak_upper_bytes <= 1.5 * m.peak_bytes
