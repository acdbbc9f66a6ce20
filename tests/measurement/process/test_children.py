import os
import subprocess
import sys

import pytest

from pytest_membudget.measurement.process import children as room
from pytest_membudget.measurement.process.children import children_of, descendants, tree_resident_bytes
from pytest_membudget.measurement.process.high_water import resident_bytes

FAMILY = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
print(child.pid, flush=True)
input()
"""


@pytest.fixture
def family():
    with subprocess.Popen(
        [sys.executable, "-c", FAMILY], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        yield parent.pid, int(parent.stdout.readline())
        parent.communicate()


@pytest.mark.processes
@pytest.mark.parametrize("by_psutil", [False, True])
def test_children_and_all_below_them_are_found(family, monkeypatch, by_psutil):
    monkeypatch.setattr(room, "_LINUX", not by_psutil)
    parent, grandchild = family
    assert children_of(parent) == [grandchild]
    assert descendants(parent) == [grandchild]
    assert {parent, grandchild} <= set(descendants())
    assert grandchild not in children_of(os.getpid())


@pytest.mark.processes
def test_a_thread_that_ends_meanwhile_hides_no_child_of_another(family, monkeypatch):
    listed = os.listdir
    monkeypatch.setattr(room.os, "listdir", lambda folder: ["4194999", *listed(folder)])
    assert family[0] in children_of(os.getpid())


def test_a_process_that_is_gone_has_none():
    assert children_of(4194999) == descendants(4194999) == []
    assert tree_resident_bytes(4194999) == 0


@pytest.mark.processes
def test_what_a_tree_holds_includes_what_is_below_its_root(family):
    parent, grandchild = family
    least_bytes = resident_bytes(parent) + resident_bytes(grandchild)  # first: they may still grow by a page
    assert tree_resident_bytes(parent) >= least_bytes > 2 * 1024**2


class SharingProcesses:
    """Processes that share all their pages, and what reading their parts costs."""

    def __init__(self, monkeypatch, shared_bytes):
        self.pids, self.faults, self.cost_s, self.now_s, self.spent_s, self.reads = [1], 0, 0.0, 0.0, 0.0, 0
        self.shared_bytes = shared_bytes
        monkeypatch.setattr(room, "_LINUX", True)
        monkeypatch.setattr(room, "time", self)
        monkeypatch.setattr(
            room.proc, "sizes", lambda _: room.proc.Sizes(0, self.shared_bytes, self.shared_bytes)
        )
        monkeypatch.setattr(room.proc, "stat", lambda _: room.proc.Stat(b"S", 0, 0, 1, 0, self.faults))
        monkeypatch.setattr(room.proc, "proportional_bytes", self.proportional_bytes)
        self.pages = room.SharedPages()

    def proportional_bytes(self, _):
        self.reads += 1
        self.spent_s += self.cost_s
        return self.shared_bytes // len(self.pids)

    def perf_counter(self):
        return self.now_s

    def thread_time(self):
        return self.spent_s

    def held_bytes(self):
        return sum(self.pages.exact_holdings(self.pids).values())


@pytest.fixture
def sharing(monkeypatch):
    return SharingProcesses(monkeypatch, shared_bytes=600)


def test_parts_in_shared_pages_are_read_all_at_once_so_that_no_page_counts_twice(sharing):
    sharing.cost_s = 0.5
    assert sharing.held_bytes() == 600
    sharing.pids, sharing.now_s = [1, 2, 3], 4.0  # no time for it yet
    assert sharing.held_bytes() == 600
    sharing.now_s = 6.0
    assert sharing.held_bytes() == 600
    assert sharing.reads == 4


def test_parts_in_shared_pages_are_read_again_only_after_a_page_fault(sharing):
    for _ in range(5):
        assert sharing.held_bytes() == 600
    assert sharing.reads == 1
    sharing.faults, sharing.shared_bytes = 7, 900
    assert sharing.held_bytes() == 900
