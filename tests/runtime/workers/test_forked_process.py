"""A process of the fork server, as the standard library and several threads ask for it."""

import multiprocessing
import sys
import threading

import pytest

from pytest_membudget.runtime.workers import channel
from pytest_membudget.runtime.workers.forked_process import default_context

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="fork servers are Linux's")


@pytest.mark.processes
def test_several_threads_may_ask_at_once_whether_processes_have_ended():
    """`multiprocessing` does so by itself: each start asks all processes of the program."""
    context, is_over, problems = default_context(), threading.Event(), []

    def ask():
        while not is_over.is_set():
            try:
                multiprocessing.active_children()
            except Exception as problem:
                problems.append(problem)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    codes = []
    for _ in range(20):
        started = context.Process(target=int)
        started.start()
        started.join()
        codes.append(started.exitcode)
        started.forked.close()
    is_over.set()
    for thread in threads:
        thread.join()
    assert (codes, problems) == ([0] * 20, [])


class StubWorker:
    """One whose connection is registered late: the thread that reads has looked at all workers meanwhile."""

    def __init__(self, ends):
        self._ends, self.sentinel, self.pid = ends, ends[2].fileno(), 0
        self.was_checked = threading.Event()
        self.is_over = False

    @property
    def channel(self):
        self.was_checked.wait(0.2)
        return self._ends[0]

    def check_end(self):
        self.was_checked.set()
        return self.is_over

    def receive(self):
        return True

    def close(self):
        pass


def test_a_worker_that_is_being_added_is_not_checked_yet(monkeypatch):
    monkeypatch.setattr(channel, "TICK_S", 0.01)
    ends = [*multiprocessing.Pipe(), *multiprocessing.Pipe()]
    first, second = StubWorker([*multiprocessing.Pipe(), *multiprocessing.Pipe()]), StubWorker(ends)
    replies = channel.Replies()
    replies.add(first)
    assert first.was_checked.wait(20)
    replies.add(second)
    assert second.was_checked.wait(20)
    second.was_checked.clear()
    assert second.was_checked.wait(20)  # the thread goes on
    first.is_over = second.is_over = True
