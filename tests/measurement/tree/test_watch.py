"""The watchdog's arm in the helper, scan by scan: no process is really killed."""

import os
import select
import signal

import pytest

from pytest_membudget.measurement.tree.helper import main
from pytest_membudget.measurement.tree.helper.main import Watch
from pytest_membudget.measurement.tree.helper.messages import Limits, decode
from pytest_membudget.measurement.tree.helper.records import Reading
from pytest_membudget.measurement.tree.helper.session import Session
from pytest_membudget.measurement.tree.helper.tree_bounds import Bounds

MIB = 1024 * 1024
ROOT, FIRST, SECOND = 1, 2, 3
GRACE_S = 5.0


class Watched:
    """A block whose tree may hold 100 MiB, with what was said of it and who was killed."""

    def __init__(self, events):
        self.killed = []
        self._events, into = events
        self._watch = Watch(into)
        self._bounds = Bounds()
        self._session = Session(0.0, ROOT, total_limit=100 * MIB)
        self._round = self._begin

    def holds(self, at_s, **mib):
        """One scan in which the root and the children hold so much; what the watch said."""
        pids = {"root": ROOT, "first": FIRST, "second": SECOND}
        readings = [Reading(pids[name], size * MIB) for name, size in mib.items()]
        interval = self._bounds.update(readings)
        self._round(at_s, interval, readings)
        ready, _, _ = select.select([self._events], [], [], 0)
        said = os.read(self._events, 65536) if ready else b""
        return [("child" if event.killed else "over", event.pid) for event in map(decode, said.splitlines())]

    def _begin(self, at_s, interval, readings):
        self._session.begin_among(interval, readings)
        self._round = self._look

    def _look(self, at_s, interval, readings):
        self._session.update(at_s, interval, readings)
        limits = Limits(grace_s=GRACE_S)
        self._watch.check(7, self._session, limits, at_s=at_s, interval=interval, readings=readings, names={})


@pytest.fixture
def watched(monkeypatch):
    events = os.pipe()
    found = Watched(events)
    monkeypatch.setattr(main.os, "kill", lambda pid, number: found.killed.append((pid, number)))
    yield found
    for descriptor in events:
        os.close(descriptor)


def test_a_runaway_child_is_killed_and_told_of_once_however_long_it_takes_to_end(watched):
    watched.holds(0, root=10)
    assert watched.holds(1, root=10, first=200) == []  # a child's first reading proves nothing
    assert watched.holds(2, root=10, first=200) == [("child", FIRST)]
    assert watched.holds(3, root=10, first=150) == []
    assert watched.killed == [(FIRST, signal.SIGKILL)]


def test_a_child_that_runs_away_long_after_another_is_killed_as_well(watched):
    watched.holds(0, root=10)
    watched.holds(1, root=10, first=200)
    watched.holds(2, root=10, first=200)
    assert watched.holds(3, root=10) == []
    watched.holds(100, root=10, second=200)
    assert watched.holds(101, root=10, second=200) == [("child", SECOND)]
    assert watched.killed == [(FIRST, signal.SIGKILL), (SECOND, signal.SIGKILL)]


def test_a_process_that_runs_away_after_its_child_is_told_to_stop_and_has_its_full_grace(watched):
    watched.holds(0, root=10)
    watched.holds(1, root=10, first=200)
    watched.holds(2, root=10, first=200)
    assert watched.holds(100, root=200) == [("over", ROOT)]
    watched.holds(100 + GRACE_S, root=200)
    assert watched.killed == [(FIRST, signal.SIGKILL)]
    watched.holds(101 + GRACE_S, root=200)
    assert watched.killed[1:] == [(ROOT, signal.SIGABRT)]
