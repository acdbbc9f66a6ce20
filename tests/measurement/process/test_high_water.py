import mmap
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_membudget.measurement.process import high_water, proc

pytestmark = pytest.mark.kernel
MIB = 1024 * 1024
SPIKE = 64 * MIB
SLACK = 2 * MIB


def touch(size):
    block = mmap.mmap(-1, size)
    for offset in range(0, size, 4096):
        block[offset] = 1
    return block


def test_a_spike_of_an_instant_is_seen_after_it_is_gone():
    mark = high_water.open_mark()
    touch(SPIKE).close()
    assert high_water.resident_bytes() < mark.start_bytes + SPIKE / 2
    assert abs(high_water.close_mark(mark) - mark.start_bytes - SPIKE) < SLACK


def test_a_nested_mark_takes_nothing_from_the_outer_one():
    outer = high_water.open_mark()
    touch(SPIKE).close()
    inner = high_water.open_mark()
    assert high_water.close_mark(inner) - inner.start_bytes < SLACK
    assert abs(high_water.close_mark(outer) - outer.start_bytes - SPIKE) < SLACK


@pytest.mark.parametrize(("resident_kib", "is_reset"), [(5000, False), (4999, True)])
def test_the_kernels_mark_is_reset_only_where_it_is_above_what_is_resident(
    resident_kib, is_reset, monkeypatch
):
    resets = []
    usage = resource.struct_rusage([0.0, 0.0, 5000, *[0] * 13])
    monkeypatch.setattr(high_water.resource, "getrusage", lambda _: usage)
    monkeypatch.setattr(high_water, "resident_and_shared_bytes", lambda: (resident_kib * 1024, 0))
    monkeypatch.setattr(high_water, "_reset", lambda: resets.append(None) is None)
    mark = high_water.open_mark()
    assert len(resets) == is_reset
    assert mark.start_bytes == resident_kib * 1024
    high_water.close_mark(mark)


def test_a_reset_by_others_takes_nothing_from_an_open_mark():
    mark = high_water.open_mark()
    touch(SPIKE).close()
    assert high_water.reset_high_water_mark()
    assert high_water.high_water_bytes() < mark.start_bytes + SPIKE / 2
    assert high_water.close_mark(mark) - mark.start_bytes > SPIKE - SLACK


def test_a_forked_child_has_no_open_marks():
    mark = high_water.open_mark()
    child = os.fork()
    if child == 0:
        os._exit(len(high_water._open))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    high_water.close_mark(mark)


def test_a_forked_child_reads_its_own_figures():
    high_water.resident_bytes()
    child = os.fork()
    if child == 0:
        block = touch(SPIKE)
        mark = high_water.open_mark()
        own = int(Path("/proc/self/statm").read_text().split()[1]) * proc.PAGE_BYTES
        block.close()
        told_apart = abs(high_water.close_mark(mark) - own) < SLACK and abs(mark.start_bytes - own) < SLACK
        os._exit(0 if told_apart else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_files_that_the_block_closed_and_whose_numbers_mean_others_are_left_alone(tmp_path):
    high_water.reset_high_water_mark()
    high_water.resident_bytes()
    numbers = [kept.descriptor() for kept in (high_water._statm, high_water._clear_refs)]
    mark = high_water.open_mark()
    touch(SPIKE).close()
    others = tmp_path / "others"
    others.write_text("0 0 0")
    other = os.open(others, os.O_RDWR)
    for number in numbers:
        os.dup2(other, number)
    assert abs(high_water.close_mark(mark) - mark.start_bytes - SPIKE) < SLACK
    assert high_water.reset_high_water_mark()
    assert others.read_text() == "0 0 0"
    for number in (other, *numbers):
        os.close(number)


UNDER_A_LARGE_PARENT = """
import os, sys
block = b"x" * (200 << 20)
if not (child := os.fork()):
    os.execv(sys.executable, [sys.executable, "-c", sys.argv[1]])
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
IN_THE_CHILD = """
import resource
from pytest_membudget.measurement.process import high_water, proc
mark = high_water.open_mark()
block = b"x" * (50 << 20)
del block
peak = high_water.close_mark(mark) - mark.start_bytes
assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > 200 << 10
assert 49 << 20 < peak < 52 << 20, peak
"""


def test_what_was_held_before_exec_is_not_taken_for_the_mark():
    subprocess.run([sys.executable, "-c", UNDER_A_LARGE_PARENT, IN_THE_CHILD], check=True)


def test_without_clear_refs_there_is_no_mark(monkeypatch):
    def refused(path, *flags):
        raise PermissionError(path)

    touch(SPIKE).close()  # the kernel's mark is above what is resident: it would have to be reset
    high_water.close_files()
    monkeypatch.setattr(high_water.os, "open", refused)
    assert high_water.open_mark() is None
    assert not high_water.reset_high_water_mark()
