"""Shared pages count once, whatever comes and goes while they are read, on scripted processes."""

import pytest

from pytest_membudget.measurement.process import shared_pages as room


class SharingProcesses:
    """Processes that share all their pages, and what reading their parts costs."""

    def __init__(self, monkeypatch, shared_bytes):
        self.pids, self.sharers, self.parents, self.ends = [1], 1, {}, {}
        self.faults, self.cost_s, self.now_s, self.spent_s, self.reads = 0, 0.0, 0.0, 0.0, 0
        self.shared_bytes, self.growth_bytes = shared_bytes, 0
        monkeypatch.setattr(room, "_LINUX", True)
        monkeypatch.setattr(room, "time", self)
        monkeypatch.setattr(room.proc, "sizes", self.sizes)
        monkeypatch.setattr(room.proc, "stat", self.stat)
        monkeypatch.setattr(room.proc, "shares", self.shares)
        self.pages = room.SharedPages()

    def sizes(self, pid):
        held_bytes = 0 if self.ends.get(pid, self.reads) < self.reads else self.shared_bytes
        return room.proc.Sizes(0, held_bytes + self.own_bytes(pid), held_bytes)

    def own_bytes(self, pid):
        return pid + self.growth_bytes * self.reads

    def stat(self, pid):
        not_exec = 0x40 if pid in self.parents else 0
        return room.proc.Stat(b"S", self.parents.get(pid, 0), 0, 0, not_exec, 1, 0, self.faults)

    def shares(self, pid):
        own_bytes = self.own_bytes(pid)
        self.reads += 1
        self.spent_s += self.cost_s
        sharers = self.sharers - sum(1 for read in self.ends.values() if read < self.reads)
        private_bytes = own_bytes + (self.shared_bytes if sharers == 1 else 0)
        return room.proc.Shares(own_bytes + self.shared_bytes // sharers, private_bytes, own_bytes)

    def perf_counter(self):
        return self.now_s

    def thread_time(self):
        return self.spent_s

    def held_bytes(self):
        return sum(self.pages.exact_holdings(self.pids).values())


@pytest.fixture
def sharing(monkeypatch):
    return SharingProcesses(monkeypatch, shared_bytes=6000)


def test_parts_in_shared_pages_are_read_all_at_once_so_that_no_page_counts_twice(sharing):
    sharing.cost_s = 0.5
    assert sharing.held_bytes() == 6001
    sharing.pids, sharing.sharers, sharing.now_s = [1, 2, 3], 3, 4.0
    assert sharing.held_bytes() == 6001  # no time for it yet
    sharing.now_s = 6.0
    assert sharing.held_bytes() == 6006
    assert sharing.reads == 4


def test_parts_in_shared_pages_are_read_again_only_after_a_page_fault(sharing):
    for _ in range(5):
        assert sharing.held_bytes() == 6001
    assert sharing.reads == 1
    sharing.faults, sharing.shared_bytes = 7, 9000
    assert sharing.held_bytes() == 9001


def test_a_process_that_grows_while_its_part_is_read_holds_that_too(sharing):
    sharing.growth_bytes = 500
    assert sharing.held_bytes() == 6501
    assert sharing.pages.with_shared_part(1, 100) == 6100


def test_processes_that_end_while_parts_are_read_make_no_page_count_twice(sharing):
    sharing.pids, sharing.sharers, sharing.ends = [1, 2, 3], 3, {1: 1, 2: 2}
    assert sharing.held_bytes() == 6006  # by parts it would be a third, a half and all of the pages


def test_a_child_that_has_the_address_space_of_its_parent_counts_once(sharing, monkeypatch):
    sharing.pids, sharing.parents = [1, 2], {2: 1}
    monkeypatch.setattr(room.proc, "sizes", lambda _: room.proc.Sizes(0, 6001, 6000))
    assert sharing.held_bytes() == 6001
