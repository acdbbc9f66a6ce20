"""Who is in a scan of readings."""

import os
import sys

import pytest

from pytest_membudget.measurement.tree.helper.records import Reading
from pytest_membudget.measurement.tree.helper.scan import Table

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the table knows Linux's devices")
ROOT = os.getpid()


class Someone:
    name = "somebody"

    def __init__(self, pid, parent, *, ended=False):
        self.pid, self.parent, self.ended = pid, parent, ended
        self.statm = b"%d" % pid

    def read(self):
        return Reading(self.pid, 0 if self.ended else 4096)

    def mappings(self, reading):
        return {}

    def mapped_since(self, reading):
        return 0, 0


class Members:
    def __init__(self, *processes):
        self.root = ROOT
        self.processes = {process.pid: process for process in processes}

    def drop(self, pid):
        del self.processes[pid]


def test_the_dead_are_members_until_one_of_us_has_waited_for_them():
    members = Members(Someone(ROOT, 1), Someone(2, ROOT, ended=True), Someone(3, 2))
    readings, *_ = Table(members).read()
    assert [(reading.pid, reading.resident) for reading in readings] == [(ROOT, 4096), (2, 0), (3, 4096)]


def test_a_dead_orphan_that_the_system_has_not_reaped_yet_is_nobody():
    members = Members(Someone(ROOT, 1), Someone(2, 1, ended=True))
    readings, *_ = Table(members).read()
    assert [reading.pid for reading in readings] == list(members.processes) == [ROOT]
