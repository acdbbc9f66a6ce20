import contextlib
import mmap
import os
import resource

import pytest

from pytest_membudget import measure, measuring
from pytest_membudget.errors import MeasurementError
from pytest_membudget.measurement.probe import Probe
from pytest_membudget.measurement.process import high_water
from pytest_membudget.measurement.tree.combine import combine, own_without_reset
from pytest_membudget.measurement.tree.helper.messages import Summary

pytestmark = pytest.mark.kernel
MIB = 1024 * 1024
SIZE = 64 * MIB


def touch(size):
    block = mmap.mmap(-1, size)
    for offset in range(0, size, 4096):
        block[offset] = 1
    return block


def spike(size):
    touch(size).close()


def near(size_bytes):
    return pytest.approx(size_bytes, abs=max(MIB, size_bytes // 100))


def test_a_spike_in_this_process_is_exact():
    m = measure(spike, SIZE)
    assert m.peak_bytes == near(SIZE)
    assert m.exact
    assert (m.source, m.processes, m.caveats) == ("kernel", 1, ())
    assert m.total_peak_bytes == m.start_bytes + m.peak_bytes
    assert abs(m.retained_bytes) < MIB


def test_what_is_kept_counts_as_retained():
    m = measure(touch, SIZE)
    assert m.retained_bytes == near(SIZE)
    m.value.close()


def test_untouched_memory_is_not_counted():
    m = measure(mmap.mmap, -1, SIZE)
    assert m.peak_bytes < MIB
    m.value.close()


def test_the_users_exception_propagates_and_the_figure_is_there():
    with pytest.raises(ZeroDivisionError), measuring("boom") as probe:
        spike(SIZE)
        raise ZeroDivisionError
    assert probe.measurement.peak_bytes == near(SIZE)
    assert probe.measurement.label == "boom"


def test_a_block_inside_a_block_is_measured_in_both():
    with measuring() as outer:
        spike(SIZE)
        with measuring() as inner:
            spike(SIZE // 2)
    assert outer.measurement.peak_bytes == near(SIZE)
    assert inner.measurement.peak_bytes == near(SIZE // 2)


def test_there_is_no_figure_before_the_end():
    with pytest.raises(MeasurementError, match="when the block ends"):
        _ = Probe().measurement


def test_without_a_reset_a_mark_that_rose_is_still_exact():
    own = own_without_reset((50 * MIB, 80 * MIB), (50 * MIB, 150 * MIB))
    m = combine(own, None, pid=1)
    assert (m.peak_bytes, m.peak_upper_bytes, m.source, m.caveats) == (100 * MIB, 100 * MIB, "kernel", ())


def test_without_a_reset_an_old_mark_bounds_what_cannot_be_seen():
    own = own_without_reset((50 * MIB, 80 * MIB), (60 * MIB, 80 * MIB))
    m = combine(own, None, pid=1)
    assert (m.peak_bytes, m.peak_upper_bytes, m.source) == (10 * MIB, 30 * MIB, "sampled")
    assert "cannot be reset" in m.caveats[0]


def test_without_a_reset_the_old_mark_bounds_it_beside_other_processes_too():
    own = own_without_reset((50 * MIB, 80 * MIB), (60 * MIB, 80 * MIB))
    others = Summary(0, 0, 0, 70 * MIB, 70 * MIB, (), (), others_floor_bytes=20 * MIB)
    m = combine(own, others, pid=1)
    assert (m.peak_bytes, m.peak_upper_bytes) == (10 * MIB, 30 * MIB)


def test_without_any_reading_there_is_no_silent_zero():
    m = combine(own_without_reset((0, 80 * MIB), (0, 80 * MIB)), None, pid=1)
    assert (m.peak_bytes, m.peak_upper_bytes) == (0, 80 * MIB)
    assert "is /proc hidden" in m.caveats[0]


def test_a_block_that_uses_up_all_descriptors_gets_no_silent_zero():
    """Where it closed ours as well, nothing in /proc can be read then; the process's own account needs no descriptor."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    kept = []
    try:
        with measuring() as probe:
            spike(SIZE)
            high_water.close_files()
            resource.setrlimit(resource.RLIMIT_NOFILE, (64, limits[1]))
            with contextlib.suppress(OSError):
                while True:
                    kept.append(os.open("/dev/null", os.O_RDONLY))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for descriptor in kept:
            os.close(descriptor)
    found = probe.measurement
    assert found.peak_upper_bytes == near(SIZE)
    assert found.source == "sampled"
    assert "every descriptor in use" in found.caveats[0]
    assert abs(found.retained_bytes) < MIB


def test_a_kernel_without_clear_refs_is_measured_all_the_same(monkeypatch):
    monkeypatch.setattr(high_water, "open_mark", lambda: None)
    m = measure(spike, 2 * high_water.high_water_bytes())
    assert m.exact
    small = measure(spike, SIZE)
    assert small.peak_bytes <= SIZE + MIB <= small.peak_upper_bytes + 2 * MIB
    assert small.caveats
