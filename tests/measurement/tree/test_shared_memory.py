"""Shared memory and files in tmpfs, mapped or not: in the figures, and never above the upper one."""

import mmap
import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
from tree_programs import MIB, touch

from pytest_membudget import measure_command, measuring
from pytest_membudget.measurement.process import children
from pytest_membudget.measurement.tree.helper.shared_memory import (
    COUNTER_FLOOR_BYTES,
    FILES_FLOOR_BYTES,
    SharedGrowth,
    SharedReader,
    SharedReading,
)

SHM = Path("/dev/shm")
needs_tmpfs = pytest.mark.skipif(
    sys.platform != "linux" or str(SHM) not in SharedReader().mounts, reason="/dev/shm is no tmpfs here"
)
SIZE = 40 * MIB
PART = bytes(MIB)


@pytest.fixture
def alone(monkeypatch):
    """As in a container where nothing but the tests runs."""
    monkeypatch.setattr(children, "runs_with_others", lambda _: False)


@pytest.fixture
def file():
    path = SHM / f"membudget-{uuid.uuid4().hex}"
    yield path
    path.unlink(missing_ok=True)


def fill(path):
    with path.open("wb") as stream:
        for _ in range(SIZE // MIB):
            stream.write(PART)


@pytest.mark.kernel
@needs_tmpfs
def test_a_file_that_stays_in_tmpfs_is_in_both_figures_and_retained(file, alone):
    with measuring() as probe:
        fill(file)
    m = probe.measurement
    assert m.peak_bytes >= SIZE - 4 * MIB
    assert m.peak_upper_bytes < SIZE + 16 * MIB
    assert m.retained_bytes >= SIZE - 4 * MIB
    assert m.shared_left_bytes == pytest.approx(SIZE, abs=4 * MIB)
    assert m.source == "sampled"


@pytest.mark.kernel
@needs_tmpfs
def test_beside_other_programs_it_is_in_the_upper_figure_with_a_caveat(file, monkeypatch):
    monkeypatch.setattr(children, "runs_with_others", lambda _: True)
    with measuring() as probe:
        fill(file)
    m = probe.measurement
    assert m.peak_bytes < MIB < SIZE - 4 * MIB < m.peak_upper_bytes
    assert "shared-not-attributed" in [caveat.kind for caveat in m.caveat_records]


@pytest.mark.kernel
@needs_tmpfs
def test_a_file_that_is_gone_at_the_end_was_seen_on_the_way(file, alone):
    with measuring() as probe:
        fill(file)
        for _ in range(2):  # each waits until the helper has read the tree; what two scans see is proven
            probe._helper.begin()
            time.sleep(
                0.1
            )  # it reads shared memory at rest, every 10 ms; a file that lives for less may be missed
        file.unlink()
    assert probe.measurement.peak_bytes >= SIZE - 4 * MIB
    assert probe.measurement.retained_bytes < SIZE


@pytest.mark.kernel
@needs_tmpfs
def test_a_mapped_segment_counts_once(file, alone):
    with measuring() as probe, file.open("w+b") as stream:
        stream.truncate(SIZE)
        segment = mmap.mmap(stream.fileno(), SIZE)
        touch(segment)
    segment.close()
    m = probe.measurement
    assert m.peak_bytes >= SIZE - 4 * MIB
    assert m.peak_upper_bytes < 1.5 * SIZE
    assert m.shared_left_bytes >= SIZE - 4 * MIB


@pytest.mark.kernel
@needs_tmpfs
def test_what_this_process_holds_open_is_proven_whoever_else_runs(monkeypatch):
    monkeypatch.setattr(children, "runs_with_others", lambda _: True)
    with measuring() as probe:
        descriptor = os.memfd_create("test")
        for _ in range(SIZE // MIB):
            os.write(descriptor, PART)
    os.close(descriptor)
    assert probe.measurement.peak_bytes >= SIZE - COUNTER_FLOOR_BYTES
    assert probe.measurement.retained_bytes >= SIZE - COUNTER_FLOOR_BYTES


@pytest.mark.kernel
@pytest.mark.processes
@needs_tmpfs
def test_what_a_command_leaves_in_tmpfs_is_below_its_upper_figure(file):
    words = [
        sys.executable,
        "-I",
        "-S",
        "-c",
        f"open({str(file)!r}, 'wb').write(b'x' * {SIZE})",
    ]
    assert measure_command(words).peak_upper_bytes > 2 * SIZE


@pytest.mark.processes
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_another_program_is_seen():
    with subprocess.Popen(["sleep", "60"]) as child:
        assert not children.runs_with_others(p for p in map(int, filter(str.isdigit, os.listdir("/proc"))))
        ours = [int(p) for p in os.listdir("/proc") if p.isdigit() and int(p) != child.pid]
        assert not children.runs_with_others(ours)  # it is below this process
        child.kill()


BIG = 100 * MIB
AT_START = SharedReading(MIB, 2 * MIB)


def growth(*readings):
    found = SharedGrowth(AT_START, 0, 0)
    for reading, mapped_low, mapped_high, tree_low in readings:
        found.update(reading, mapped_low, mapped_high, tree_low)
    return found.high_bytes, found.now_bytes, found.total_low_bytes


def plus(size):
    return SharedReading(AT_START.files_bytes + size, AT_START.total_bytes + size)


def added(files, unnamed=0, group=None):
    group_bytes = -1 if group is None else BIG + group
    start = AT_START._replace(group_bytes=-1 if group is None else BIG)
    now = SharedReading(start.files_bytes + files, start.total_bytes + files + unnamed, 0, group_bytes)
    return now.added_since(start)


def test_growth_within_the_error_of_the_counters_is_none():
    assert added(FILES_FLOOR_BYTES - 1) == added(0, COUNTER_FLOOR_BYTES) == 0
    assert (added(BIG), added(0, BIG), added(BIG, BIG)) == (BIG, BIG, 2 * BIG)


def test_what_another_control_group_adds_is_not_the_trees():
    assert added(BIG, group=0) == added(0, BIG, group=COUNTER_FLOOR_BYTES) == 0
    assert added(BIG, BIG, group=3 * MIB) == 3 * MIB + COUNTER_FLOOR_BYTES
    assert added(BIG, group=BIG + MIB // 2) == BIG


def test_what_a_program_elsewhere_gives_up_hides_nothing():
    assert added(-BIG, group=BIG) == BIG - COUNTER_FLOOR_BYTES
    assert (
        added(FILES_FLOOR_BYTES, group=0) == FILES_FLOOR_BYTES
    )  # the group's figure may be late by that much


def test_what_is_not_known_at_the_start_is_not_counted():
    assert SharedReading(BIG, BIG).added_since(SharedReading()) == 0


def test_what_the_tree_maps_is_counted_with_it_and_not_again():
    assert growth((plus(BIG), BIG, BIG, BIG)) == (0, 0, BIG)


def test_of_what_may_be_mapped_the_least_lowers_the_upper_figure_and_the_most_the_lower_one():
    once = (plus(BIG), BIG // 4, BIG // 2, BIG // 2)
    assert growth(once, once) == (BIG * 3 // 4, BIG * 3 // 4, BIG)


def test_what_came_after_the_scan_before_is_not_proven_at_the_same_instant_as_the_tree():
    assert growth((plus(BIG), 0, 0, MIB)) == (BIG, BIG, MIB)


def test_the_highest_scan_counts_and_the_last_one_is_left():
    rising = [(plus(size), 0, 0, 0) for size in (BIG, BIG, 2 * BIG, BIG)]
    assert growth(*rising) == (2 * BIG, BIG, BIG)
