"""What an attempt may hold and how long it may take, on scripted figures. What follows where it takes more: test_scheduler_limits."""

import pytest
from scripted_scheduler import BEHIND, MB, Played, a_task, holds, only

from pytest_membudget.runtime.admission.ledger import Ticket
from pytest_membudget.runtime.executor.state import Kill
from pytest_membudget.runtime.executor.task_watch import (
    NOT_BEGUN_POLL_S,
    Excess,
    deadline_of,
    excess,
    excess_at_kernel_limit,
)
from pytest_membudget.runtime.workers.task_memory import RESOLUTION_BYTES


@pytest.mark.parametrize(("limit", "expected"), [(300, 300), (1.5, 150)])
def test_a_limit_is_a_size_or_a_factor_of_the_charge(limit, expected):
    played, task = Played(1000), a_task(100, limit=limit)
    played.submit(task)
    assert task.limit_bytes == expected


@pytest.mark.parametrize(
    ("own_limit", "taken_bytes", "expected"),
    [
        (None, 200 + RESOLUTION_BYTES, None),
        (None, 201 + RESOLUTION_BYTES, Excess("charge", 201 + RESOLUTION_BYTES)),
        (150, 150, None),
        (150, 151, Excess("limit", 151)),
    ],
)
def test_a_task_may_hold_its_limit_or_what_was_granted(own_limit, taken_bytes, expected):
    running = a_task(charged_bytes=100, limit_bytes=own_limit)
    assert excess(running, Ticket(200), taken_bytes) == expected


@pytest.mark.parametrize(
    ("own_limit", "kernel_limit", "expected"),
    [
        (None, None, None),
        (None, 300, Excess("charge", 301)),
        (200, 200, Excess("limit", 201)),
    ],
)
def test_what_the_kernel_ended_held_more_than_the_limit_it_had(own_limit, kernel_limit, expected):
    ended = a_task(limit_bytes=own_limit, kernel_limit_bytes=kernel_limit)
    assert excess_at_kernel_limit(ended, 50) == expected


@pytest.mark.parametrize(("own_limit", "expected"), [(None, 200 + RESOLUTION_BYTES), (250, 250)])
def test_the_kernel_ends_what_the_next_reading_would(own_limit, expected):
    played, task = Played(1000, overrun="end"), a_task(200, limit=own_limit)
    played.submit(task)
    assert task.kernel_limit_bytes == expected


@pytest.mark.parametrize(
    ("timeout_s", "began_s", "expected"),
    [(None, 3.0, None), (5.0, 3.0, 8.0), (5.0, None, 10.0 + NOT_BEGUN_POLL_S), (0.01, None, 10.01)],
)
def test_time_counts_from_the_call_of_the_function(timeout_s, began_s, expected):
    running = a_task(timeout_s=timeout_s, began_s=began_s)
    assert deadline_of(running, 10.0) == expected
    running.timed_out = True
    assert deadline_of(running, 10.0) is None, "it is being ended for that"


def test_that_an_earlier_attempt_was_being_ended_does_not_spare_the_next_one():
    played, task = Played(1000 * MB), a_task(10 * MB, limit=100 * MB)
    played.submit(task)
    for _ in range(2):
        assert only(played.pass_time(1.0, holds(200)), Kill)
        played.reply(task, BEHIND)  # its worker had ended before that
    assert task.state == "running"
    assert not task.is_being_ended


def test_an_estimator_that_cannot_learn_costs_no_result_and_is_logged(caplog):
    played, task = Played(), a_task()
    submission, task.charge.observe = task.submission, None
    played.submit(task)
    played.returned(task, peak_bytes=5)
    assert played.outcome(submission) == 3
    assert "the estimator cannot learn from abs(-3)" in caplog.text
