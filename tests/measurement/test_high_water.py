import mmap
import os
import subprocess
import sys

import pytest

from pytest_membudget.measurement import high_water

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


def test_processes_that_are_gone_are_left_out():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert high_water.tree_resident_bytes([os.getpid(), child.pid]).keys() == {os.getpid(), child.pid}
    child.communicate(b"\n")
    assert high_water.tree_resident_bytes([os.getpid(), child.pid]).keys() == {os.getpid()}


def test_without_clear_refs_there_is_no_mark(monkeypatch):
    def refused(path, *flags):
        raise PermissionError(path)

    monkeypatch.setattr(os, "open", refused)
    assert high_water.open_mark() is None
    assert not high_water.reset_high_water_mark()
