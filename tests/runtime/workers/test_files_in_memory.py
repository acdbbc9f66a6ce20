"""What a call holds in files in memory, by scripted readings of the machine and of workers."""

import os
import time

import pytest

from pytest_membudget.measurement.tree.helper.shared_memory import SharedReading
from pytest_membudget.runtime.workers.files_in_memory import CallFiles, MachineMemory, OpenFiles
from pytest_membudget.runtime.workers.serialization import Report

MB = 1_000_000


class Machine(MachineMemory):
    """Shared memory that a test sets, in megabytes."""

    def __init__(self):
        self.held_mb, self.now_s = 100, 0.0
        super().__init__(self._scripted, lambda: self.now_s)

    def _scripted(self):
        return SharedReading(files_bytes=self.held_mb * MB, total_bytes=self.held_mb * MB)


class Call:
    """One call of a worker of its own; its report says that it added 10 MB to 30 that were resident."""

    def __init__(self, machine):
        self.machine, self.files = machine, CallFiles(machine)
        machine.refresh()
        machine.now_s += 1.0
        self.files.begin(1, machine.now_s)

    def holds(self, open_mb=0, mapped_mb=0, *, machine_mb, written_mb=0):
        self.machine.held_mb = machine_mb
        self.machine.now_s += 0.1
        self.files._written_bytes = written_mb * MB
        self.files.observe(self.machine.now(), open_mb * MB, mapped_mb * MB, 32 * MB)

    def took(self):
        report = Report("returned", b"", peak_bytes=10 * MB, resident_peak_bytes=40 * MB)
        report = self.files.added_to(report, 1)
        upper_bytes = report.peak_bytes if report.peak_upper_bytes is None else report.peak_upper_bytes
        return report.peak_bytes // MB, upper_bytes // MB


@pytest.fixture
def machine():
    return Machine()


def test_a_file_that_is_open_is_held_at_that_moment_at_least(machine):
    call = Call(machine)
    call.holds(50, machine_mb=150, written_mb=50)
    assert call.took() == (52, 60)


def test_a_file_that_is_open_counts_where_others_have_given_as_much_up(machine):
    call = Call(machine)
    machine.held_mb = 20
    open_now = OpenFiles([], {(1, 7): (time.time() + 1.0, 50 * MB)})
    call.files.read(os.getpid(), 1, machine.now_s, 32 * MB, open_now)
    assert call.took() == (52, 60)


def test_a_file_that_was_closed_may_be_the_calls(machine):
    call = Call(machine)
    call.holds(20, machine_mb=120, written_mb=20)
    call.holds(0, machine_mb=150, written_mb=50)
    assert call.took() == (22, 60)


def test_a_call_that_has_written_nothing_has_filled_no_file(machine):
    call = Call(machine)
    call.holds(0, machine_mb=150, written_mb=0)
    assert call.took() == (10, 10)


def test_what_was_filled_by_way_of_mapped_memory_may_be_the_calls(machine):
    call = Call(machine)
    call.holds(0, mapped_mb=5, machine_mb=150)
    call.holds(0, mapped_mb=5, machine_mb=150)
    assert call.took() == (10, 55)


def test_what_other_workers_are_seen_to_hold_is_theirs(machine):
    call, other = Call(machine), Call(machine)
    for _ in range(2):
        call.holds(0, machine_mb=150, written_mb=60)
        other.holds(50, machine_mb=150, written_mb=60)
    assert call.took() == (10, 10)


def test_what_was_there_before_the_call_is_not_the_calls(machine):
    machine.held_mb = 400
    call = Call(machine)
    call.holds(0, machine_mb=400, written_mb=60)
    assert call.took() == (10, 10)


def test_a_call_that_is_watched_keeps_the_figures_of_its_helper(machine):
    call = Call(machine)
    call.holds(50, machine_mb=150, written_mb=50)
    watched = Report("returned", b"", peak_bytes=10 * MB, peak_upper_bytes=70 * MB)
    assert call.files.added_to(watched, 1) == watched
