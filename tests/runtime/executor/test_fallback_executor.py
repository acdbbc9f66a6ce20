"""The executor as its caller sees it, on real processes, threads and in sequence."""

import concurrent.futures
import itertools
import threading

import executor_jobs as jobs
import pytest

from pytest_membudget import (
    ExecutorPolicy,
    FallbackExecutor,
    MemoryEstimator,
    OversizeError,
    TaskMemoryError,
    TaskTimeoutError,
    UnpicklableError,
    WorkerKilledError,
)
from waiting import is_alive, wait_until

LEVELS = ["process", "thread", "sequential"]
pytestmark = pytest.mark.processes


@pytest.fixture(params=LEVELS)
def executor(request):
    with FallbackExecutor(2, budget="1 GB", levels=(request.param,)) as made:
        yield made


def test_submit_map_and_run_give_every_result_in_order(executor):
    assert executor.submit(pow, 2, exp=8).result() == 256
    assert list(executor.map(pow, range(10), range(10))) == list(map(pow, range(10), range(10)))
    assert list(executor.map(jobs.square, range(10), chunksize=3)) == [n * n for n in range(10)]
    assert executor.run(jobs.square, range(10)).values == [n * n for n in range(10)]
    assert executor.events == ()


@pytest.mark.parametrize("chunksize", [1, 2])
def test_a_call_that_raises_stop_iteration_does_not_end_the_results_in_silence(chunksize):
    with FallbackExecutor(levels=("sequential",)) as executor:
        results = executor.map(next, [iter("a"), iter(""), iter("c"), iter("d")], chunksize=chunksize)
        with pytest.raises(RuntimeError, match=r"a call of map raised StopIteration\(\)"):
            list(results)


def test_the_level_is_told(executor, request):
    level = request.node.callspec.params["executor"]
    assert executor.level == level
    assert [outcome.level for outcome in executor.run(jobs.square, range(5)).outcomes] == [level] * 5


@pytest.mark.parametrize(
    "name",
    [
        "OSError",
        "FileNotFoundError",
        "RuntimeError",
        "BrokenProcessPool",
        "KeyboardInterrupt",
        "SystemExit",
        "ValueError",
    ],
)
def test_the_users_own_exception_comes_at_once(executor, name):
    (outcome,) = executor.run(jobs.raise_named, [name]).outcomes
    assert (type(outcome.error).__name__, outcome.cause, outcome.attempts) == (name, "error", 1)
    assert executor.submit(jobs.square, 3).result() == 9
    assert executor.events == ()


def test_the_traceback_of_a_worker_process_comes_along():
    with FallbackExecutor(1, budget="1 GB") as executor:
        error = executor.submit(jobs.raise_named, "ValueError").exception()
    assert "in raise_named" in str(error.__cause__)


def test_a_killed_worker_costs_one_repeat(tmp_path):
    with FallbackExecutor(2, budget="1 GB") as executor:
        futures = [executor.submit(jobs.square, n) for n in range(20)]
        killed = executor.submit(jobs.die_first_time, str(tmp_path / "marker"))
        futures += [executor.submit(jobs.square, n) for n in range(20)]
        assert killed.result() > 0
        assert [future.result() for future in futures] == [n * n for n in range(20)] * 2
    (event,) = [event for event in executor.events if event.kind == "worker-killed"]
    assert "SIGKILL" in event.cause
    assert "repeated" in event.next_step


@pytest.mark.parametrize(("retries", "attempts"), [(0, 1), (1, 2), (2, 3)])
def test_a_task_that_kills_every_worker_is_reported(retries, attempts):
    with FallbackExecutor(2, budget="1 GB", policy=ExecutorPolicy(retries=retries)) as executor:
        outcomes = executor.run(jobs.die, range(4)).outcomes
    assert [type(outcome.error) for outcome in outcomes] == [WorkerKilledError] * 4
    assert [outcome.attempts for outcome in outcomes] == [attempts] * 4
    assert {outcome.cause for outcome in outcomes} == {"killed"}


@pytest.mark.parametrize(("retries", "attempts"), [(0, 1), (2, 3)])
def test_a_memory_error_is_repeated_then_reported(tmp_path, retries, attempts):
    marker = tmp_path / "attempts"
    with FallbackExecutor(2, budget="1 GB", policy=ExecutorPolicy(retries=retries)) as executor:
        future = executor.submit(jobs.note_and_run_out, str(marker))
        with pytest.raises(TaskMemoryError, match="ran out of memory"):
            future.result()
    assert len(marker.read_text()) == attempts
    assert [event.kind for event in executor.events if event.kind in {"retry", "alone"}][: retries - 1] == [
        "retry"
    ] * max(0, retries - 1)


def test_in_a_thread_a_memory_error_is_the_callers_at_once():
    with FallbackExecutor(1, budget="1 GB", levels=("thread",)) as executor:
        (outcome,) = executor.run(jobs.raise_named, ["MemoryError"]).outcomes
    assert (str(outcome.error), outcome.cause, outcome.attempts) == ("mine", "out-of-memory", 1)


def test_a_result_that_cannot_travel_is_said_clearly():
    with FallbackExecutor(1, budget="1 GB") as executor:
        batch = executor.run(jobs.return_unpicklable, range(5))
        assert executor.submit(jobs.square, 3).result() == 9
    assert {outcome.cause for outcome in batch.outcomes} == {"unpicklable"}
    with pytest.raises(UnpicklableError, match="returned a lock"):
        _ = batch.values


@pytest.mark.parametrize(
    ("fn", "kind", "text"),
    [
        (jobs.raise_unpicklable, jobs.UnpicklableOneError, "inside"),
        (jobs.raise_unloadable, jobs.UnloadableError, "together"),
    ],
)
def test_an_exception_arrives_whatever_it_does_when_pickled(fn, kind, text):
    with FallbackExecutor(1, budget="1 GB") as executor:
        outcome = executor.run(fn, range(5)).outcomes[0]
    assert (outcome.cause, type(outcome.error), str(outcome.error)) == ("error", kind, text)
    assert f"in {fn.__name__}" in str(outcome.error.__cause__)


def test_arguments_that_cannot_travel_are_said_clearly():
    with FallbackExecutor(1, budget="1 GB") as executor:
        with pytest.raises(UnpicklableError, match=r"the arguments of square .*cannot pickle '_thread.lock'"):
            executor.submit(jobs.square, threading.Lock()).result()
        assert executor.submit(jobs.square, 3).result() == 9


def test_a_task_past_its_time_is_ended_with_what_it_started(tmp_path):
    pid_file = tmp_path / "pid"
    with FallbackExecutor(2, budget="1 GB", policy=ExecutorPolicy(timeout_s=1.5)) as executor:
        slow = executor.submit(jobs.start_sleeper, str(pid_file))
        quick = [executor.submit(jobs.square, n) for n in range(10)]
        with pytest.raises(TaskTimeoutError, match=r"longer than 1\.5 s"):
            slow.result()
        assert [future.result() for future in quick] == [n * n for n in range(10)]
    wait_until(lambda: not is_alive(int(pid_file.read_text())))


def test_a_thread_past_its_time_is_reported_and_left_to_itself():
    with FallbackExecutor(
        1, budget="1 GB", levels=("thread",), policy=ExecutorPolicy(timeout_s=0.2)
    ) as executor:
        (outcome,) = executor.run(jobs.pid_after, [0.5]).outcomes
        assert outcome.cause == "timeout"
        assert "cannot be ended" in str(outcome.error)
        assert executor.submit(jobs.square, 3).result() == 9


def test_a_task_larger_than_the_budget_is_refused_or_runs_alone():
    estimator = MemoryEstimator(gamma=0, overhead="200 MB")
    with (
        FallbackExecutor(1, budget="100 MB", estimator=estimator) as executor,
        pytest.raises(OversizeError, match=r"191 MiB.*95\.4 MiB"),
    ):
        executor.submit(jobs.square, 3).result()
    alone = ExecutorPolicy(oversize="alone")
    with FallbackExecutor(2, budget="100 MB", estimator=estimator, policy=alone) as executor:
        assert list(executor.map(jobs.square, range(5))) == [n * n for n in range(5)]


def test_inputs_are_drawn_as_results_are_read():
    drawn = itertools.count()
    with FallbackExecutor(2, max_in_flight=3, budget="1 GB", levels=("thread",)) as executor:
        results = executor.map(jobs.square, drawn)
        assert [next(results) for _ in range(5)] == [n * n for n in range(5)]
        assert next(drawn) == 5 + 3


def test_an_iterator_that_outlives_its_executor_goes_on():
    with FallbackExecutor(2, max_in_flight=3, budget="1 GB") as executor:
        results = executor.map(jobs.square, range(12))
    assert list(results) == [n * n for n in range(12)]


def test_run_draws_lazily_from_an_iterator():
    most = []
    running = []

    def inputs():
        for number in range(30):
            most.append(number - len(running))
            yield number

    def note(number):
        running.append(number)
        return number

    with FallbackExecutor(2, max_in_flight=4, budget="1 GB", levels=("thread",)) as executor:
        assert executor.run(note, inputs()).values == list(range(30))
    assert max(most) <= 4


def test_a_worker_is_replaced_after_its_tasks():
    policy = ExecutorPolicy(max_tasks_per_child=3)
    with FallbackExecutor(1, budget="1 GB", policy=policy) as executor:
        pids = list(executor.map(jobs.pid_after, [0.0] * 12))
    assert all(len(list(group)) == 3 for _, group in itertools.groupby(pids))


def test_workers_see_the_environment_of_now(monkeypatch):
    monkeypatch.setenv("MEMBUDGET_TEST", "one")
    with FallbackExecutor(1, budget="1 GB") as executor:
        assert executor.submit(jobs.environment, "MEMBUDGET_TEST").result() == "one"
    monkeypatch.setenv("MEMBUDGET_TEST", "two")
    with FallbackExecutor(1, budget="1 GB") as executor:
        assert executor.submit(jobs.environment, "MEMBUDGET_TEST").result() == "two"


@pytest.mark.parametrize("level", LEVELS)
def test_the_initializer_runs_in_each_worker(level):
    with FallbackExecutor(
        1, budget="1 GB", levels=(level,), initializer=jobs.initialize, initargs=(7,)
    ) as executor:
        assert executor.submit(jobs.state, 0).result()[-1:] == [7]


def test_an_initializer_that_ends_its_process_is_not_run_in_the_program():
    with (
        FallbackExecutor(1, budget="1 GB", initializer=jobs.crash, initargs=("",)) as executor,
        pytest.raises(concurrent.futures.BrokenExecutor, match=r"initializer ran \(worker .* exit code 3\)"),
    ):
        executor.submit(jobs.square, 3).result()


@pytest.mark.parametrize("level", LEVELS)
def test_a_failing_initializer_breaks_the_executor(level):
    with FallbackExecutor(1, budget="1 GB", levels=(level,), initializer=jobs.fail_to_initialize) as executor:
        with pytest.raises(concurrent.futures.BrokenExecutor, match="error in initializer"):
            executor.submit(jobs.square, 3).result()
        with pytest.raises(concurrent.futures.BrokenExecutor):
            executor.submit(jobs.square, 3).result()


def test_cancelled_calls_do_not_run(tmp_path):
    with FallbackExecutor(1, budget="1 GB") as executor:
        executor.submit(jobs.pid_after, 0.3)
        waiting = [executor.submit(jobs.square, n) for n in range(10)]
        assert all(future.cancel() for future in waiting[5:])
        assert [future.result() for future in waiting[:5]] == [n * n for n in range(5)]
        done, not_done = concurrent.futures.wait(waiting)
    assert not not_done
    assert len(done) == 10


def test_a_callback_may_submit():
    with FallbackExecutor(1, budget="1 GB") as executor:
        second = concurrent.futures.Future()

        def again(future):
            executor.submit(jobs.square, future.result()).add_done_callback(
                lambda last: second.set_result(last.result())
            )

        executor.submit(jobs.square, 2).add_done_callback(again)
        assert second.result() == 16


def test_no_worker_outlives_its_executor():
    with FallbackExecutor(2, budget="1 GB") as executor:
        pids = set(executor.map(jobs.pid_after, [0.05] * 6))
    assert not [pid for pid in pids if is_alive(pid)]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"max_workers": 0}, "max_workers must be greater than 0"),
        ({"max_in_flight": 0}, "max_in_flight"),
        ({"budget": "12"}, "budget"),
        ({"levels": ()}, "levels"),
        ({"levels": ("proces",)}, "levels"),
    ],
)
def test_nonsense_is_named(arguments, words):
    with pytest.raises(ValueError, match=words):
        FallbackExecutor(**arguments)


@pytest.mark.parametrize(
    "arguments",
    [{"retries": -1}, {"timeout_s": 0}, {"oversize": "maybe"}, {"target_memory": 1.5}, {"small_batch": -1}],
)
def test_a_nonsense_policy_is_named(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        ExecutorPolicy(**arguments)
