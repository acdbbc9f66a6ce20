"""What follows one attempt, on scripted figures."""

from concurrent.futures import Future
from functools import partial
from types import SimpleNamespace

import pytest

from pytest_membudget import MemoryEstimator, TaskMemoryError, WorkerKilledError
from pytest_membudget.runtime.executor.attempts import (
    Answer,
    Retry,
    after_attempt,
    after_failure,
    lost_event,
    over_limit_event,
    start_timeout_event,
    timeout_event,
)
from pytest_membudget.runtime.executor.charges import FileCharge
from pytest_membudget.runtime.executor.state import Failure, Submission, Task, task_name
from pytest_membudget.runtime.workers.protocol import Died, Figures, Raised, RanOut, Returned, Unpicklable

KILLED = Died("worker process 7 was killed by SIGKILL", attempted=True)


def task(attempts, charged_bytes=100):
    call = Submission(print, ("a.csv",), {}, Future())
    made = Task(call, FileCharge(10, MemoryEstimator(gamma=0, overhead=100)))
    made.attempts, made.charged_bytes = attempts, charged_bytes
    return made


def test_a_partial_is_named_by_its_function():
    call = Submission(partial(partial(sorted, key=len), reverse=True), ("a.csv",), {}, Future())
    assert task_name(Task(call, FileCharge(10, MemoryEstimator()))) == "sorted('a.csv')"


# What follows it ------------------------------------------------------------------------------------------------------


def follows(tried, reply):
    return after_attempt(tried, reply, retries=2, largest_bytes=1000, own_memory=True)


def test_what_came_back_is_the_answer_whatever_its_type():
    error = MemoryError("raised by the function, and sent back")
    assert follows(task(1), Returned(3)) == Answer(3)
    assert follows(task(1), Raised(error)) == Failure(error)
    assert follows(task(1), Unpicklable(error)) == Failure(error, "unpicklable")
    assert follows(task(1), RanOut(error)) == Retry(200, alone=False)


@pytest.mark.parametrize(
    ("fields", "reply", "cause"),
    [
        ({"timed_out": True}, KILLED, "timeout"),
        ({"over_limit_bytes": 301, "limit_bytes": 300}, KILLED, "over-limit"),
        (
            {"over_limit_bytes": 301, "limit_bytes": 300},
            Returned(3, Figures(reached_limit=True)),
            "over-limit",
        ),
        ({"overran_bytes": 301, "alone": True}, KILLED, "over-limit"),
        ({"alone": True}, KILLED, "killed"),
    ],
)
def test_what_was_ended_for_good_is_not_repeated(fields, reply, cause):
    tried = task(1)
    for name, value in fields.items():
        setattr(tried, name, value)
    assert follows(tried, reply).cause == cause


def test_who_answered_in_time_has_the_answer_though_a_limit_was_seen_exceeded():
    tried = task(1)
    tried.over_limit_bytes = 301
    assert follows(tried, Returned(3)) == Answer(3)


@pytest.mark.parametrize(
    ("attempts", "expected"),
    [(1, Retry(200, alone=False)), (2, Retry(200, alone=True))],
)
def test_a_killed_task_is_repeated_with_more_then_alone(attempts, expected):
    assert after_failure(task(attempts), KILLED, retries=2, largest_bytes=1000, own_memory=True) == expected


@pytest.mark.parametrize(
    ("reply", "alone", "kind"),
    [
        (KILLED, False, "worker-killed"),
        (RanOut(MemoryError()), False, "retry"),
        (RanOut(MemoryError()), True, "alone"),
    ],
)
def test_the_event_says_whether_a_worker_was_lost_and_whether_the_task_repeats_alone(reply, alone, kind):
    assert lost_event(task(1), reply, Retry(200, alone=alone)).kind == kind


def test_the_charge_of_a_repeat_ends_at_the_budget():
    again = after_failure(task(1, 90), KILLED, retries=2, largest_bytes=150, own_memory=True)
    assert again == Retry(150, alone=True)


def test_a_repeat_is_charged_more_whatever_its_charge_answers():
    tried = task(1)
    tried.charge = SimpleNamespace(retry_bytes=lambda failed_bytes: failed_bytes)
    again = after_failure(tried, KILLED, retries=2, largest_bytes=1000, own_memory=True)
    assert again == Retry(101, alone=False)


def test_after_the_last_repeat_the_task_is_reported():
    what = after_failure(task(3), KILLED, retries=2, largest_bytes=1000, own_memory=True)
    assert isinstance(what.error, WorkerKilledError)
    assert "tried 3 times" in str(what.error)
    assert "SIGKILL" in str(what.error)


def test_a_crash_is_not_told_as_a_lack_of_memory():
    crash = Died("worker process 7 was killed by SIGSEGV", attempted=True, crashed=True)
    what = after_failure(task(3), crash, retries=2, largest_bytes=1000, own_memory=True)
    assert what.cause == "killed"
    assert "a crash rather than a lack of memory" in str(what.error)
    assert "larger budget" not in str(what.error)


def test_what_ran_out_of_memory_is_never_repeated_in_the_coordinator():
    tried = task(1)
    tried.ran_out = True
    what = after_failure(tried, RanOut(MemoryError()), retries=2, largest_bytes=1000, own_memory=False)
    assert isinstance(what, Failure)
    assert isinstance(what.error, TaskMemoryError)
    assert what.cause == "out-of-memory"


# What the caller can read of it ---------------------------------------------------------------------------------------


def test_an_event_of_a_limit_has_both_figures():
    tried = task(1)
    tried.limit_bytes = 300
    assert over_limit_event(tried, 301).cause == "print('a.csv') took 301 B or more, its limit is 300 B"


@pytest.mark.parametrize(
    ("can_be_ended", "next_step"),
    [(True, "its worker is replaced"), (False, "its thread is left to itself")],
)
def test_a_call_that_is_out_of_time_ends_with_its_worker_but_not_with_a_thread(can_be_ended, next_step):
    tried = task(1)
    tried.timeout_s = 60
    event = timeout_event(tried, can_be_ended=can_be_ended)
    assert (event.cause, event.next_step) == ("print('a.csv') ran longer than 60 s", next_step)


@pytest.mark.parametrize(
    ("stage", "next_step"), [("initializer", "no call can run"), ("import", "that worker is ended")]
)
def test_an_initializer_that_does_not_end_stops_every_call(stage, next_step):
    assert start_timeout_event(task(1), "process", stage, 5.0).next_step == next_step
