"""What the helper reads of one process, where the kernel's files are about to go away."""

import io
import mmap
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tree_programs import MIB, share

from pytest_membudget.measurement.process import proc
from pytest_membudget.measurement.tree.helper import proc_reader

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(sys.platform != "linux", reason="the helper reads Linux's /proc"),
]


def test_a_process_that_ends_while_it_is_read_has_no_mark(monkeypatch):

    # Its memory goes before the rest of it: the status then has no VmHWM any more.
    monkeypatch.setattr(proc_reader, "_number", lambda *_: 0)
    process = proc_reader.Process(os.getpid())
    process.read()
    with mmap.mmap(-1, 64 * MIB) as block:
        block[:: mmap.PAGESIZE] = b"x" * (len(block) // mmap.PAGESIZE)
    reading = process.read()
    process.close()
    assert reading.mark is None


@pytest.mark.parametrize(("later", "faults"), [(500, 500), (0, 0)])
def test_a_process_that_ended_since_its_faults_were_read_has_all_of_them_in_one_round(
    later, faults, monkeypatch
):
    """500 when its memory was gone; none any more when its parent is about to have them on its account."""
    from pytest_membudget.measurement.tree.helper import sampling

    process = proc_reader.Process(os.getpid())
    gone = os.memfd_create("statm")
    os.write(gone, b"0 0 0 0 0 0 0")
    os.dup2(gone, process._fds[1])
    os.close(gone)
    first = process._stat()
    counted = iter([100, later])

    def stat():
        return [*first[:7], b"%d" % next(counted), *first[8:9], b"0", *first[10:]]

    monkeypatch.setattr(process, "_stat", stat)
    reading = process.read()
    process.close()
    assert (reading.resident, reading.faults, reading.late_faults) == (0, faults, 0)
    assert sampling.sample_proportional(
        [reading], {reading.pid: process}
    ).forking  # others may still share what it clears


def test_other_shared_memory_of_the_same_size_is_noticed():

    process = proc_reader.Process(os.getpid())
    process.mapped_since(process.read())  # what this code itself is mapped by for the first time
    first = share(8 * MIB)
    known = process.mappings(process.read())
    assert process.mappings(process.read()) is known
    first.close()
    second = share(8 * MIB)
    reading = process.read()
    assert process.mapped_since(reading)[1] >= 8 * MIB
    assert process.mappings(reading) is not known
    assert reading.swapped >= 8 * MIB
    assert process.mapped_since(reading)[1] < MIB  # a fault of any kind since then may have been one of them
    second.close()
    process.close()


class _InParts(io.RawIOBase):
    """A file of the kernel's, which comes by 4 KiB whatever is asked for."""

    def __init__(self, content):
        self._content = content

    def readable(self):
        return True

    def read(self, size=-1):
        part, self._content = self._content[:4096], self._content[4096:]
        return part


@pytest.mark.parametrize("before", [0, 200])
def test_huge_pages_are_counted_however_far_behind_they_stand(monkeypatch, before):
    lines = [
        *(f"counter_{at} {at:020}" for at in range(before)),
        "thp_fault_alloc 12",
        "thp_collapse_alloc 30",
    ]
    content = "\n".join(["nr_free_pages 5", *lines, "thp_split_page 9", ""]).encode()
    monkeypatch.setattr(proc_reader, "open", lambda *_, **__: _InParts(content), raising=False)
    assert proc_reader.huge_pages() == 42


def test_a_machine_without_huge_pages_has_handed_out_none(monkeypatch):
    monkeypatch.setattr(proc_reader, "open", lambda *_, **__: _InParts(b"nr_free_pages 5\n"), raising=False)
    assert proc_reader.huge_pages() == 0


def test_a_few_pages_more_of_a_file_are_counted_before_files_and_shared_memory_are_read_apart(tmp_path):
    (tmp_path / "mapped").write_bytes(bytes(50 * mmap.PAGESIZE))
    process = proc_reader.Process(os.getpid())
    before = process.read()
    with (tmp_path / "mapped").open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as pages:
        assert not any(pages[:: mmap.PAGESIZE])
        after = process.read()
    process.close()
    assert 30 * mmap.PAGESIZE <= after.file - before.file <= 70 * mmap.PAGESIZE


def stat_of(pid):
    """The fields of `stat` by their numbers in proc_pid_stat(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return lambda number: int(fields[number - 3])


@pytest.fixture
def forked():
    """A child that was forked, has waited for one of its own, and sleeps."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        grandchild = os.fork()
        if not grandchild:
            os._exit(0)
        os.waitpid(grandchild, 0)
        os.write(writing, b"x")
        signal.pause()
    os.read(reading, 1)
    yield pid
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(reading)
    os.close(writing)


def test_a_process_is_read_as_its_files_have_it(forked):
    process = proc_reader.Process(forked)
    found, stat, sizes = process.read(), stat_of(forked), proc.sizes(forked)
    assert (found.pid, found.parent) == (forked, os.getpid())
    assert found.faults == stat(10) + stat(12) > 0
    assert found.reaped_faults == stat(11) + stat(13) > 0
    assert found.anon == pytest.approx(sizes.anonymous_bytes, abs=64 * mmap.PAGESIZE)
    assert found.resident == pytest.approx(sizes.resident_bytes, abs=64 * mmap.PAGESIZE)
    assert proc_reader.identity(forked) == (forked, os.getpid(), os.getpgid(forked), os.getsid(forked))
    assert proc_reader.started_ticks(forked) == stat(22)
    process.close()


def test_a_fork_is_of_the_group_of_its_parent_until_it_calls_exec(forked):
    def group_of(pid):
        process = proc_reader.Process(pid)
        group = process.read().fork_group
        process.close()
        return group

    assert group_of(forked) == group_of(os.getpid())
    with subprocess.Popen(["sleep", "60"]) as program:
        assert group_of(program.pid) != group_of(os.getpid())
        program.kill()


def test_a_process_that_was_not_waited_for_holds_nothing_and_keeps_its_faults(forked):
    process = proc_reader.Process(forked)
    assert proc_reader.has_memory(forked)
    before = process.read()
    os.kill(forked, signal.SIGKILL)
    os.waitid(os.P_PID, forked, os.WEXITED | os.WNOWAIT)
    after = process.read()
    process.close()
    assert process.ended
    assert not proc_reader.has_memory(forked)
    assert (after.resident, after.parent, after.fork_group) == (0, os.getpid(), before.fork_group)
    assert after.faults >= before.faults
    assert after.reaped_faults == before.reaped_faults


def test_a_mapping_is_known_by_its_file_and_its_part_of_that(tmp_path):
    path, page = tmp_path / "mapped", mmap.PAGESIZE
    path.write_bytes(bytes(20 * page))
    status = path.stat()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 3 * page, prot=mmap.PROT_READ, offset=2 * page):
        parts = [
            part
            for key, part in proc_reader.read_mappings(os.getpid()).items()
            if key.endswith(b" %d" % status.st_ino)
        ]
    assert (2 * page, 5 * page) in parts


def test_what_several_map_of_a_file_is_limited_by_its_outermost_parts():
    first = {b"08:01 7": (0, 10), b"08:01 8": (5, 6), b"00:19 9": (0, 1000)}
    second = {b"08:01 7": (20, 50)}
    assert proc_reader.mapped_limit([first, second], without={b"00:19"}) == 50 + 1
    assert proc_reader.mapped_limit([first, second], without=set()) == 50 + 1 + 1000
