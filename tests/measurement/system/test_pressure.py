import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pytest_membudget.measurement.system.machine import MemoryPressure, memory_pressure, open_trigger
from pytest_membudget.records.measurement import MemoryLimit, MemoryReading

FULL = MemoryReading(limit=MemoryLimit(100, "test"), available_bytes=24)
ROOMY = MemoryReading(limit=MemoryLimit(100, "test"), available_bytes=25)
HOST = "some avg10={} avg60=0.00 avg300=0.00 total=10798\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=4763\n"


class Clock:
    now_s = 1000.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def machine(tmp_path):
    """A machine whose `some avg10` a test sets."""
    (tmp_path / "proc/pressure").mkdir(parents=True)

    def set_average(percent):
        (tmp_path / "proc/pressure/memory").write_text(HOST.format(percent))

    set_average("0.00")
    return tmp_path, set_average


def without_trigger(path):
    return None


def test_without_pressure_files_nothing_is_stalled(tmp_path):
    pressure = MemoryPressure(tmp_path)
    assert not pressure.is_stalled()
    assert pressure.source == ""


def test_without_a_trigger_the_average_over_ten_seconds_counts(machine):
    root, set_average = machine
    pressure = MemoryPressure(root, trigger=without_trigger, reading=lambda: FULL)
    set_average("9.99")
    assert not pressure.is_stalled()
    set_average("10.00")
    assert pressure.is_stalled()


def test_an_event_lasts_for_one_window_after_it_was_seen(machine):
    clock, events = Clock(), [False]
    pressure = MemoryPressure(machine[0], clock, lambda _: events.pop, lambda: FULL)
    assert not pressure.is_stalled()
    clock.now_s += 1
    events.append(True)
    assert pressure.is_stalled()
    clock.now_s += 1.9
    events.append(False)
    assert pressure.is_stalled()
    clock.now_s += 0.1
    events.append(False)
    assert not pressure.is_stalled()


def test_an_event_from_before_a_long_pause_counts_only_while_the_average_is_high(machine):
    root, set_average = machine
    clock = Clock()
    pressure = MemoryPressure(root, clock, lambda _: lambda: True, lambda: FULL)
    assert not pressure.is_stalled(), "the first question may find an event of long ago"
    clock.now_s += 60
    assert not pressure.is_stalled()
    clock.now_s += 60
    set_average("35.00")
    assert pressure.is_stalled()


def test_the_own_control_group_counts_before_the_machine(machine):
    root, set_average = machine
    (root / "proc/self").mkdir()
    (root / "proc/self/cgroup").write_text("0::/job\n")
    (root / "proc/self/mountinfo").write_text("30 24 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")
    (root / "sys/fs/cgroup/job").mkdir(parents=True)
    own = root / "sys/fs/cgroup/job/memory.pressure"
    own.write_text(HOST.format("0.00"))
    set_average("90.00")
    pressure = MemoryPressure(root, trigger=without_trigger)
    assert pressure.source == str(own)
    assert not pressure.is_stalled()


@pytest.mark.parametrize(("has_type", "stalls"), [(False, [False, True]), (True, [True, True])])
def test_stalls_of_the_whole_machine_count_only_where_memory_is_short(machine, has_type, stalls):
    """A container sees its own group as the topmost one, and there every stall counts; in the kernel's it does not."""
    root, set_average = machine
    set_average("90.00")
    (root / "proc/self").mkdir()
    (root / "proc/self/cgroup").write_text("0::/\n")
    (root / "proc/self/mountinfo").write_text("30 24 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")
    (root / "sys/fs/cgroup").mkdir(parents=True)
    (root / "sys/fs/cgroup/memory.pressure").write_text(HOST.format("90.00"))
    if has_type:
        (root / "sys/fs/cgroup/cgroup.type").write_text("domain\n")
    readings = iter((ROOMY, FULL))
    pressure = MemoryPressure(root, trigger=without_trigger, reading=lambda: next(readings))
    assert [pressure.is_stalled(), pressure.is_stalled()] == stalls


def test_without_a_group_of_its_own_stalls_of_the_machine_count_where_memory_is_short(machine):
    root, set_average = machine
    set_average("90.00")
    assert not MemoryPressure(root, trigger=without_trigger, reading=lambda: ROOMY).is_stalled()
    assert MemoryPressure(root, trigger=without_trigger, reading=lambda: FULL).is_stalled()


@pytest.mark.kernel
@pytest.mark.skipif(sys.platform != "linux", reason="PSI is Linux's")
def test_the_kernel_takes_an_unprivileged_trigger_or_none_is_used():
    pressure = memory_pressure()
    if not pressure.source or not os.access(pressure.source, os.W_OK):
        pytest.skip("this kernel has no pressure file that this process may write to")
    assert open_trigger(Path(pressure.source))() in {True, False}
    assert open_trigger(Path("/nowhere")) is None


@pytest.mark.kernel
@pytest.mark.skipif(sys.platform != "linux", reason="PSI is Linux's")
def test_many_threads_may_ask_at_once():
    pressure = memory_pressure()
    with ThreadPoolExecutor(4) as threads:
        assert set(threads.map(lambda _: type(pressure.is_stalled()), range(4000))) == {bool}
