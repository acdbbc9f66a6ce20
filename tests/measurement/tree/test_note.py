"""The note by which a quiet block is known: its format, and what a helper that reads it late makes up for."""

import os
import signal
import subprocess
import sys
import time

import pytest
from tree_programs import MIB, Holder

from pytest_membudget import measuring, originals
from pytest_membudget.measurement.tree import sampler
from pytest_membudget.measurement.tree.helper.messages import Note, Notepad, NoteWriter, Start

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the helper watches Linux processes")


@pytest.fixture
def descriptor():
    descriptor = os.memfd_create("test")
    yield descriptor
    os.close(descriptor)


def test_a_note_is_read_as_written_until_it_is_wiped(descriptor):
    notepad, writer = Notepad(descriptor), NoteWriter(descriptor)
    assert notepad.read() is None
    writer.write(Note(3, 10**18, Start(2**40, 2**30, 7, 9)))
    assert notepad.read() == Note(3, 10**18, Start(2**40, 2**30, 7, 9))
    writer.wipe()
    assert notepad.read() is None
    writer.close()


def test_half_a_note_is_none(descriptor):
    NoteWriter(descriptor).write(Note(3, 1, Start(2, 1, 4, 5)))
    os.pwrite(descriptor, b"\5", 0)
    assert Notepad(descriptor).read() is None


def test_where_no_memory_file_may_be_made_there_is_no_note():
    assert Notepad(-1).read() is None


# Alone in a fresh process: with children from before, a block begins with a question that a stopped helper leaves open.
LATE = """
import os, signal, subprocess, sys
from pytest_membudget import measuring
from pytest_membudget.measurement.tree import sampler

with measuring():
    pass  # the first block asks whether it is alone
helper = sampler.sampler()
os.kill(helper.pid, signal.SIGSTOP)
with measuring() as probe:
    subprocess.run([sys.executable, "-S", "-c", "b'x' * (64 << 20)"], check=True)
    os.kill(helper.pid, signal.SIGCONT)
print(probe.measurement.peak_upper_bytes)
"""


@pytest.mark.kernel
@pytest.mark.processes
def test_a_child_that_came_and_went_before_the_note_was_read_is_in_the_upper_figure():
    assert int(subprocess.check_output([sys.executable, "-c", LATE])) >= 64 * MIB


KEPT = """
import mmap, os, signal
from pytest_membudget import measuring
from pytest_membudget.measurement.tree import sampler

block = mmap.mmap(-1, 64 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
block.write(b"x" * len(block))
with measuring():
    pass
helper = sampler.sampler()
read, write = os.pipe()
os.kill(helper.pid, signal.SIGSTOP)
with measuring() as probe:
    if not (pid := os.fork()):
        os.read(read, 1)
        os._exit(0)
    for offset in range(0, len(block), mmap.PAGESIZE):
        block[offset] = 1
    os.write(write, b"g")
    os.waitpid(pid, 0)
    os.kill(helper.pid, signal.SIGCONT)
print(probe.measurement.peak_upper_bytes)
"""


@pytest.mark.kernel
@pytest.mark.processes
def test_what_a_child_kept_while_this_process_wrote_to_it_is_in_the_upper_figure_unseen():
    assert int(subprocess.check_output([sys.executable, "-c", KEPT])) >= 64 * MIB


@pytest.mark.kernel
@pytest.mark.processes
def test_a_helper_that_died_while_nobody_needed_it_is_replaced_before_somebody_does(caplog, monkeypatch):
    monkeypatch.setattr(sampler._keeper, "lost", 0)
    with measuring():
        pass
    first = sampler.sampler()
    os.kill(first.pid, signal.SIGKILL)
    while first.is_alive():
        time.sleep(0.001)
    with measuring() as probe:
        Holder(20 * MIB).release()
    assert probe.measurement.processes == 2
    assert not any("was lost" in caveat for caveat in probe.measurement.caveats)
    assert sum("was lost" in record.message for record in caplog.records) == 1


@pytest.mark.kernel
@pytest.mark.processes
def test_a_sandbox_without_memory_files_is_measured_all_the_same(monkeypatch):
    def refuse(name):
        raise PermissionError(name)

    sampler.close_sampler()
    monkeypatch.setattr(originals.os, "memfd_create", refuse)
    with measuring() as probe:
        subprocess.run([sys.executable, "-S", "-c", "b'x'"], check=True)
    sampler.close_sampler()
    assert probe.measurement.processes > 1
