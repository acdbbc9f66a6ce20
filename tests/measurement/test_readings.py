"""What the helper reads of one process, where the kernel's files are about to go away."""

import mmap
import os
import sys

import pytest

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(sys.platform != "linux", reason="the helper reads Linux's /proc"),
]
MIB = 1024 * 1024


def test_a_process_that_ends_while_it_is_read_has_no_mark(monkeypatch):
    from pytest_membudget.measurement.tree_helper import readings

    # Its memory goes before the rest of it: the status then has no VmHWM any more.
    monkeypatch.setattr(readings, "_status_value", lambda *_: 0)
    process = readings.Process(os.getpid())
    process.read()
    with mmap.mmap(-1, 64 * MIB) as block:
        block[:: mmap.PAGESIZE] = b"x" * (len(block) // mmap.PAGESIZE)
    reading = process.read()
    process.close()
    assert reading.mark is None
