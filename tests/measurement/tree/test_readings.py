"""What the helper reads of one process, where the kernel's files are about to go away."""

import io
import mmap
import os
import sys

import pytest
from tree_programs import MIB, share

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
