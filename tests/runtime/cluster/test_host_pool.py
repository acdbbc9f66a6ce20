"""One call at a time on each host: scripted workers, no cluster."""

import itertools

import pytest

from pytest_membudget.runtime.cluster import launcher
from pytest_membudget.runtime.workers.protocol import CannotStartError, Died, NoWorkerYetError, Returned


class Remote:
    """Answers when the test says so."""

    def __init__(self, host, capacity_bytes):
        self.host = host
        self.capacity_bytes = capacity_bytes
        self.is_gone = False
        self.calls = []

    def send(self, calls):
        self.calls += calls

    def answer(self, reply=None):
        call, done = self.calls.pop(0)
        done(reply or Returned(call.fn(*call.args)))


class Launcher:
    def __init__(self, *workers):
        self.workers = list(workers)
        self.fault = NoWorkerYetError()
        self.asked = []

    def start(self):
        if self.workers:
            return self.workers.pop(0)
        raise self.fault

    def ask(self, workers, function, *args):
        self.asked.append((workers, args))

    def close(self):
        self.workers = None


@pytest.fixture
def spread(monkeypatch):
    """Starts to spread numbers over workers; `step` lets one worker answer and gives what comes of it."""
    monkeypatch.setattr(launcher, "_POLL_S", 0.001)

    def start(*workers, items=6):
        cluster = Launcher(*workers)
        monkeypatch.setattr(launcher, "DaskLauncher", lambda *_, **__: cluster)
        hosts = launcher.HostPool("anywhere", lambda *_: None)
        return hosts, cluster, hosts.spread(abs, iter(range(items)))

    return start


def drive(monkeypatch, hosts, turns):
    """Between two looks at the replies, the next of `turns` is played."""
    heard = hosts._replies_soon

    def play():
        next(turns, lambda: None)()
        return heard()

    monkeypatch.setattr(hosts, "_replies_soon", play)


def test_each_host_has_one_call_at_a_time_on_its_largest_worker(spread, monkeypatch):
    small, large, other = Remote("a", 100), Remote("a", 300), Remote("b", 50)
    hosts, launcher, answers = spread(small, large, other)
    most = []

    def step():
        most.append(sorted((worker.host, len(worker.calls)) for worker in (small, large, other)))
        for worker in (large, other):
            if worker.calls:
                worker.answer()
                return

    drive(monkeypatch, hosts, itertools.repeat(step))
    found = list(answers)
    assert sorted((each.item, each.reply.value) for each in found) == [(n, n) for n in range(6)]
    assert all(counts[0] == ("a", 0) and counts[1][1] <= 1 and counts[2][1] <= 1 for counts in most)
    assert {each.host for each in found} == {"a", "b"}
    assert launcher.workers == []


def test_what_a_lost_worker_had_is_sent_once_more(spread, monkeypatch):
    first, second = Remote("a", 300), Remote("a", 100)

    def lose(worker):
        worker.is_gone = True
        worker.answer(Died("lost", attempted=True))

    hosts, _, answers = spread(first, second, items=1)
    drive(monkeypatch, hosts, iter([lambda: lose(first), second.answer]))
    (found,) = answers
    assert found.reply == Returned(0)

    first, second = Remote("a", 300), Remote("a", 100)
    hosts, _, answers = spread(first, second, items=1)
    drive(monkeypatch, hosts, iter([lambda: lose(first), lambda: lose(second)]))
    assert next(answers).reply == Died("lost", attempted=True)


def test_what_is_done_is_done_though_nobody_is_left(spread, monkeypatch):
    only = Remote("a", 300)

    def answer_and_leave():
        only.answer()
        only.is_gone = True

    hosts, launcher, answers = spread(only, items=1)
    drive(monkeypatch, hosts, iter([answer_and_leave]))
    assert next(answers).reply == Returned(0)
    launcher.fault = NoWorkerYetError()
    assert list(answers) == []


def test_a_cluster_that_is_gone_ends_it(spread):
    _, launcher, answers = spread()
    launcher.fault = CannotStartError("no scheduler there")
    with pytest.raises(CannotStartError, match="no scheduler there"):
        next(answers)


def test_called_off_each_worker_is_asked_to_stop_and_waited_for(spread, monkeypatch):
    worker = Remote("a", 100)
    hosts, launcher, answers = spread(worker, items=2)

    def stop_there():
        raise KeyboardInterrupt

    drive(monkeypatch, hosts, iter([stop_there, worker.answer]))
    with pytest.raises(KeyboardInterrupt):
        next(answers)
    hosts.cancel(print, "token")
    assert launcher.asked == [([worker], ("token",))]
    assert hosts._sent == {}
