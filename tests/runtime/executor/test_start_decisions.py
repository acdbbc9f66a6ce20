"""What follows when a worker does not come to its first call, on scripted clocks and figures."""

import asyncio
import time
from concurrent.futures.process import BrokenProcessPool
from types import SimpleNamespace

import executor_jobs as jobs
import pytest

from pytest_membudget import ExecutorPolicy, MemoryEstimator, StartTimeoutError
from pytest_membudget.errors import UsageError
from pytest_membudget.runtime.cluster.connection import Offer
from pytest_membudget.runtime.cluster.membership import Reception
from pytest_membudget.runtime.cluster.remote_worker import LentWorker
from pytest_membudget.runtime.cluster.roster import Roster
from pytest_membudget.runtime.cluster.worker_side import Introduction, Look
from pytest_membudget.runtime.executor.aftermath import Aftermath
from pytest_membudget.runtime.executor.learning import FileCharge
from pytest_membudget.runtime.executor.levels import Levels
from pytest_membudget.runtime.executor.replies import Rules
from pytest_membudget.runtime.executor.task import Task
from pytest_membudget.runtime.executor.watch import Watch
from pytest_membudget.runtime.workers.protocol import CannotStartError, Delay, Died


class ScriptedWorker:
    """A worker that says what the test says."""

    def __init__(self):
        self.began_s = None
        self.waits = None
        self.killed = 0

    def started_at(self, sequence):
        return self.began_s

    def delay(self, sequence):
        return self.waits

    def added_bytes(self):
        return 0

    def kill(self):
        self.killed += 1
        return True


class Watched:
    """One busy worker under the watch, on a scripted clock."""

    def __init__(self, start_timeout_s=10.0, timeout_s=None):
        self.worker = ScriptedWorker()
        task = Task(jobs.square, (3,), {}, FileCharge(1, MemoryEstimator()), timeout_s=timeout_s)
        self.post = SimpleNamespace(
            worker=self.worker, in_flight=[task], ticket=None, stuck_at=None, level="process"
        )
        self.events = []
        self.ended_with = []
        floor = SimpleNamespace(crew=SimpleNamespace(posts=[self.post]), end_with=self.ended_with.append)
        rules = Rules(2, start_timeout_s, lambda: 100, self.events.append, lambda: 0.0)
        self.look = Watch(floor, rules).look


def test_a_worker_that_does_not_come_to_its_call_is_ended_once():
    watched = Watched()
    watched.worker.waits = Delay("import", 100.0)
    for now_s in (100.0, 109.9, 110.0, 111.0):
        watched.look(now_s)
    assert watched.worker.killed == 1
    assert watched.post.stuck_at == "import"
    (event,) = watched.events
    assert event.kind == "timeout"
    assert "had not imported what square(3) needs, module 'executor_jobs' first, within 10" in event.cause


def test_without_a_limit_it_is_waited_for():
    watched = Watched(start_timeout_s=None)
    watched.worker.waits = Delay("start", 0.0)
    watched.look(1e9)
    assert not watched.worker.killed


def test_an_initializer_that_does_not_return_ends_everything():
    watched = Watched()
    watched.worker.waits = Delay("initializer", 0.0)
    watched.look(10.0)
    (error,) = watched.ended_with
    assert isinstance(error, BrokenProcessPool)
    assert isinstance(error.__cause__, StartTimeoutError)


def test_a_tasks_own_time_counts_from_the_call_of_its_function():
    watched = Watched(start_timeout_s=100.0, timeout_s=5.0)
    watched.worker.waits = Delay("import", 0.0)
    watched.look(50.0)
    assert not watched.worker.killed
    watched.worker.began_s = 60.0
    assert watched.look(64.0) == 65.0
    watched.look(65.0)
    assert watched.worker.killed == 1


class Answered:
    """A task whose worker was ended as it did not come to it, at a level that may start another."""

    def __init__(self, stuck_before, *, error=None):
        self.task = Task(jobs.square, (3,), {}, FileCharge(1, MemoryEstimator()))
        self.task.sequence, self.task.stuck = 1, stuck_before
        self.task.begin()
        self.repeated = []
        self.error = error
        line = SimpleNamespace(broken=None, again=self.repeated.append)
        floor = SimpleNamespace(crew=self, line=line, leave=lambda _: None, end_with=self._end_with)
        post = SimpleNamespace(
            in_flight=[self.task], stuck_at="import", is_gone=False, level="process", host=""
        )
        self.floor = floor
        rules = Rules(2, 7.0, lambda: 100, lambda _: None, lambda: 0.0)
        Aftermath(floor, rules).replied(post, self.task, 1, Died("it was killed", attempted=True))

    def stuck(self, post, detail):
        if self.error is not None:
            raise self.error

    def _end_with(self, error):
        self.floor.line.broken = error


@pytest.mark.parametrize(("stuck_before", "repeats"), [(0, 1), (1, 1), (2, 0)])
def test_another_worker_gets_the_task_three_in_all(stuck_before, repeats):
    answered = Answered(stuck_before)
    assert answered.repeated == [answered.task] * repeats
    assert answered.task.attempts == 0
    if not repeats:
        assert answered.task.cause == "timeout"
        assert isinstance(answered.task.future.exception(0), StartTimeoutError)


def test_where_no_worker_can_start_everybody_is_told():
    answered = Answered(0, error=CannotStartError("no lower level"))
    assert isinstance(answered.floor.line.broken, StartTimeoutError)
    assert answered.task.future.exception(0) is answered.floor.line.broken
    assert not answered.repeated


def test_a_worker_of_a_cluster_says_whether_it_has_called_the_function():
    who = Introduction("there", 7, (), 0)
    lent = LentWorker(SimpleNamespace(), "tcp://there:1", who, 1000, 0, has_nanny=False)
    lent.take_in(Look(3, False, 5.0, 0, ()))
    now_s = time.monotonic()
    assert lent.started_at(3) is None
    assert lent.delay(4) is None
    delay = lent.delay(3)
    assert delay.stage == "import"
    assert now_s - 5.1 < delay.since_s <= now_s - 5.0
    lent.take_in(Look(3, True, 2.0, 0, ()))
    assert lent.delay(3) is None
    assert now_s - 2.1 < lent.started_at(3) <= time.monotonic() - 2.0


def test_a_worker_of_a_cluster_whose_initializer_never_returns_is_not_used():
    pytest.importorskip("cloudpickle")

    class Link:
        token = "t"

        async def workers(self):
            return {"tcp://there:1": Offer(1000, has_nanny=False)}

        async def hand(self, *_):
            await asyncio.sleep(3600)

    told = []
    reception = Reception(
        Link(), Roster(), lend=None, tell=lambda *each: told.append(each), initializer=None, initargs=(), start_timeout_s=0.01
    )  # fmt: skip
    asyncio.run(reception.open())
    assert "was not ready within 0.01 s" in reception.why_nobody()
    assert [next_step for _, next_step in told] == ["it is not used"]


def levels_of(*names):
    launchers = [SimpleNamespace(level=name) for name in names]
    return Levels(launchers, lambda _: None, lambda: 0.0), launchers


def test_a_level_that_never_had_a_ready_worker_is_left_at_once():
    levels, (processes, threads) = levels_of("process", "thread")
    levels.stuck(processes, "it hung")
    assert levels.launcher is threads
    levels.stuck(processes, "a second one did as well")
    assert levels.launcher is threads


def test_a_level_that_has_proved_itself_is_left_after_three_in_a_row():
    levels, (processes, threads) = levels_of("process", "thread")
    levels.proved_itself(processes)
    levels.stuck(processes, "it hung")
    levels.stuck(processes, "it hung")
    assert levels.launcher is processes
    levels.proved_itself(processes)
    for _ in range(3):
        levels.stuck(processes, "it hung")
    assert levels.launcher is threads


def test_threads_of_a_small_batch_prove_nothing_of_processes():
    levels, (processes, threads) = levels_of("process", "thread")
    levels.proved_itself(threads)
    levels.stuck(processes, "it hung")
    assert levels.launcher is threads


def test_the_last_level_tries_three_more_times_after_it_was_told():
    levels, (processes,) = levels_of("process")
    for _ in range(2):
        levels.failed_to_start(processes, "it died")
        levels.failed_to_start(processes, "it died")
        with pytest.raises(CannotStartError, match="3 ended before they were ready"):
            levels.failed_to_start(processes, "it died")


def test_the_last_level_has_none_below_it():
    levels, (processes,) = levels_of("process")
    with pytest.raises(CannotStartError, match="it hung"):
        levels.stuck(processes, "it hung")


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), "1", True])
def test_a_limit_that_is_no_time_is_refused(seconds):
    with pytest.raises(UsageError, match="start_timeout_s is"):
        ExecutorPolicy(start_timeout_s=seconds)
