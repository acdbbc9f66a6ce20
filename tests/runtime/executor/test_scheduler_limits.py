"""Limits of time and memory while a task runs, and what starts while memory is short."""

from concurrent.futures import Future

import pytest
from scripted_scheduler import BEHIND, KILLED, MB, Fixed, Played, a_task, holds, only, sent

from pytest_membudget import TaskOverLimitError
from pytest_membudget.runtime.executor.charges import StatedCharge
from pytest_membudget.runtime.executor.state import Finish, Forget, Kill, Record, Submission, Task
from pytest_membudget.runtime.workers.protocol import Delay, Figures, Raised, Reading, Returned
from pytest_membudget.runtime.workers.task_memory import RESOLUTION_BYTES

# Overruns and limits --------------------------------------------------------------------------------------------------


def test_an_overrun_is_charged_and_told_once_with_what_it_became():
    played, task, other = Played(100 * MB), a_task(10 * MB), a_task(30 * MB)
    played.submit(task)
    for megabytes in (5, 80, 85):
        assert not played.pass_time(1.0, holds(megabytes))
    assert not sent(played.submit(other))
    assert sent(played.returned(task, peak_bytes=90 * MB)) == [other]
    (event,) = only(played.effects, Record)
    assert event.kind == "overrun"
    assert "took 85.8 MiB, 9.54 MiB were granted" in event.cause


def test_an_overrun_that_a_kill_has_ended_is_told_beside_the_kill():
    played, task = Played(100 * MB), a_task(10 * MB)
    played.submit(task)
    played.pass_time(1.0, holds(80))
    played.reply(task, KILLED)
    assert [event.kind for event in only(played.effects, Record)] == ["overrun", "worker-killed"]


def test_a_call_within_the_lease_of_the_one_before_it_is_no_overrun():
    played = Played(100 * MB, workers=1)
    played.scheduler.pool.throughput.mean_s = 0.001
    first, second = a_task(30 * MB), a_task(10 * MB)
    played.submit(first, second)
    played.returned(first)
    assert played.running == [second]
    played.pass_time(1.0, holds(25))
    assert not second.seen_above_charge_bytes


def test_less_above_its_charge_than_can_be_told_is_no_overrun():
    played, task = Played(100 * MB), a_task(10 * MB)
    played.submit(task)
    played.pass_time(1.0, holds(10.5))
    played.returned(task)
    assert not only(played.effects, Record)


def test_what_a_task_holds_above_its_charge_is_learned_once_and_charged_to_those_that_wait():
    played, charge = Played(100 * MB, workers=2), Fixed(60 * MB)
    first, second = (Task(Submission(abs, (-3,), {}, Future()), charge) for _ in range(2))
    played.submit(first, second)
    for megabytes in (50, 70, 75):
        charge.size_bytes = megabytes * MB
        played.pass_time(1.0, holds(megabytes))
    assert charge.seen_running == [70 * MB]
    assert second.charged_bytes == 70 * MB


def test_an_estimator_that_cannot_learn_from_a_running_task_ends_nothing():
    played, task = Played(100 * MB), a_task(10 * MB)
    task.charge.seen_running = None
    played.submit(task)
    played.pass_time(1.0, holds(80))
    assert played.running == [task]


def test_an_overrun_can_be_ended_and_is_repeated_with_a_larger_charge():
    played, task = Played(200 * MB, overrun="end", retries=2), a_task(10 * MB)
    played.submit(task)
    slot = played.slot_of(task)
    assert only(played.pass_time(1.0, holds(40)), Kill) == [Kill(slot)]
    assert not played.pass_time(1.1, holds(60))  # it is on its way out
    assert sent(played.reply(task, KILLED)) == [task]
    assert task.charged_bytes == 80 * MB
    (event,) = only(played.effects, Record)
    assert (event.kind, "was ended" in event.cause) == ("overrun", True)


def test_what_outgrows_the_whole_budget_alone_is_told_with_both_numbers():
    played, task = Played(100 * MB, overrun="end", oversize="alone"), a_task(120 * MB)
    submission = task.submission
    played.submit(task)
    played.pass_time(1.0, holds(200))
    played.reply(task, KILLED)
    error = played.outcome(submission)
    assert isinstance(error, TaskOverLimitError)
    assert (error.limit, error.reached) == (120 * MB, 200 * MB)


def test_without_repeats_an_overrun_that_is_ended_is_told_with_both_numbers():
    played, task = Played(100 * MB, overrun="end", retries=0), a_task(20 * MB)
    submission = task.submission
    played.submit(task)
    played.pass_time(1.0, holds(60))
    played.reply(task, KILLED)
    error = played.outcome(submission)
    assert (error.limit, error.reached) == (20 * MB, 60 * MB)


@pytest.mark.parametrize(
    ("limit", "policy", "often"),
    [(None, {}, False), (50, {}, True), (None, {"overrun": "end"}, True), (None, {"profiles": True}, True)],
)
def test_workers_are_read_often_while_a_task_runs_whose_memory_is_watched(limit, policy, often):
    played, task = Played(**policy), a_task(limit=limit)
    assert not played.scheduler.watch.has_limits
    played.submit(task)
    assert played.scheduler.watch.has_limits is often
    played.returned(task)
    assert not played.scheduler.watch.has_limits


@pytest.mark.parametrize(("limit", "limit_mb"), [(50 * MB, 50), (2.0, 40)])
def test_a_task_above_its_limit_is_ended_and_its_neighbours_are_not(limit, limit_mb):
    played = Played(1000 * MB)
    task, other = a_task(20 * MB, limit=limit), a_task(20 * MB)
    submission = task.submission
    played.submit(task, other)
    assert task.limit_bytes == limit_mb * MB
    assert not only(played.pass_time(1.0, holds(limit_mb)), Kill)
    assert only(played.pass_time(1.0, holds(limit_mb + 2)), Kill) == [Kill(played.slot_of(task))]
    played.reply(task, KILLED)
    error = played.outcome(submission)
    assert isinstance(error, TaskOverLimitError)
    assert (error.limit, error.reached) == (limit_mb * MB, (limit_mb + 2) * MB)
    assert (task.cause, task.attempts) == ("over-limit", 1)
    assert (task.peak_bytes, task.peak_upper_bytes) == (error.reached, None)
    assert other.state == "running"
    assert played.scheduler.pool.concurrency.now == 2


AT_LIMIT = Figures(1.0, reached_limit=True)


ended_by_the_kernel = pytest.mark.parametrize(
    "end",
    [
        lambda played, task: (played.pass_time(1.0, Reading(0.0, None, 0, True)), played.reply(task, KILLED)),
        lambda played, task: played.reply(task, KILLED._replace(figures=AT_LIMIT)),
        lambda played, task: played.reply(task, Raised(OSError("its program was killed"), AT_LIMIT)),
        lambda played, task: played.reply(task, Returned(0, AT_LIMIT)),
    ],
    ids=["seen while it runs", "its worker killed", "its program killed", "unnoticed"],
)


@ended_by_the_kernel
def test_what_the_kernel_ends_at_a_limit_is_over_its_limit_and_not_repeated(end):
    played = Played(1000 * MB)
    task, other = a_task(20 * MB, limit=50 * MB), a_task(20 * MB)
    submission = task.submission
    played.submit(task, other)
    slot = played.slot_of(task)
    end(played, task)
    error = played.outcome(submission)
    assert isinstance(error, TaskOverLimitError)
    assert task.peak_bytes == error.reached > error.limit == 50 * MB
    assert "exceeded its limit of 47.7 MiB" in str(error)
    assert only(played.effects, Kill) == [Kill(slot)]
    assert [event.kind for event in only(played.effects, Record)] == ["over-limit"]
    assert slot not in played.scheduler.pool.slots
    assert other.state == "running"
    played.scheduler.validate()


@ended_by_the_kernel
def test_what_the_kernel_ends_at_its_charge_is_repeated_with_a_larger_one(end):
    played, task = Played(1000 * MB, overrun="end"), a_task(20 * MB)
    played.submit(task)
    slot = played.slot_of(task)
    end(played, task)
    assert slot not in played.scheduler.pool.slots
    assert [event.kind for event in only(played.effects, Record)] == ["overrun"]
    assert (task.attempts, task.state, task.charged_bytes > 40 * MB) == (1, "running", True)
    played.scheduler.validate()


def test_what_a_worker_has_yet_to_load_is_no_part_of_what_the_kernel_holds_its_call_to():
    played, first, second = Played(1000 * MB, overrun="end"), a_task(20 * MB), a_task(20 * MB)
    played.submit(first)
    assert first.kernel_limit_bytes == 20 * MB + RESOLUTION_BYTES
    played.returned(first, peak_bytes=70 * MB, kept_bytes=60 * MB)
    third = a_task(20 * MB, limit=30 * MB)
    played.submit(second, third)  # one in the worker that has loaded, the other in a new one
    assert second.kernel_limit_bytes == 20 * MB + RESOLUTION_BYTES
    assert third.kernel_limit_bytes == 90 * MB


def test_what_the_kernel_has_ended_took_more_than_it_held_the_call_to():
    played, task = Played(200 * MB, overrun="end"), a_task(10 * MB)
    played.submit(task)
    played.pass_time(1.0, Reading(0.0, None, 0, True))  # what was above is gone when it is read
    assert task.overran_bytes > task.kernel_limit_bytes


def test_a_reading_of_a_worker_that_was_left_or_is_idle_by_now_changes_nothing():
    played, lost, done = Played(200 * MB, levels=("thread",)), a_task(10 * MB, timeout_s=5.0), a_task(10 * MB)
    played.submit(lost, done)
    slots = [played.slot_of(task) for task in (lost, done)]
    played.pass_time(5.0, Reading(0.0, None, 0))
    played.returned(done)
    played.scheduler.time_passed(6.0, dict.fromkeys(slots, holds(90)))
    assert not played.decided()


def test_a_call_without_a_limit_is_not_blamed_for_what_one_before_it_left():
    played, task = Played(), a_task()
    played.submit(task)
    assert [effect.value for effect in only(played.reply(task, Returned(3, AT_LIMIT)), Finish)] == [3]


def test_a_guess_is_charged_no_more_than_the_limit_and_what_the_caller_said_is_refused():
    played, task = Played(100), a_task(150, limit=80)
    assert sent(played.submit(task)) == [task]
    assert task.charged_bytes == 80
    stated = Task(Submission(abs, (-3,), {}, Future()), StatedCharge(90), limit=80)
    submission = stated.submission
    assert not sent(played.submit(stated))
    assert "90 B, more than its limit of 80 B" in str(played.outcome(submission))


def test_a_guess_larger_than_the_budget_is_not_refused_where_the_limit_fits():
    played, task = Played(100), a_task(500, estimate_bytes=500, limit=50)
    assert sent(played.submit(task)) == [task]
    assert (task.charged_bytes, task.alone) == (50, False)


def test_a_limit_that_cannot_be_kept_is_said_once():
    played = Played(levels=("thread",))
    tasks = [a_task(limit=50), a_task(limit=50)]
    played.submit(*tasks)
    (event,) = only(played.effects, Record)
    assert event.is_logged
    assert "cannot be kept in the program itself" in event.cause
    assert tasks[0].limit_bytes is None


# Time -----------------------------------------------------------------------------------------------------------------


def test_a_tasks_time_counts_from_the_call_of_its_function():
    played, task = Played(start_timeout_s=100.0), a_task(timeout_s=5.0)
    played.submit(task)
    assert not played.pass_time(50.0, Reading(None, Delay("import", 0.0), 0))
    assert played.scheduler.deadline_s == 50.05
    assert not played.pass_time(64.0, Reading(60.0, None, 0))
    assert played.scheduler.deadline_s == 65.0
    effects = played.pass_time(65.0, Reading(60.0, None, 0))
    assert len(only(effects, Kill)) == 1
    assert [(event.kind, event.next_step) for event in only(effects, Record)] == [
        ("timeout", "its worker is replaced")
    ]
    assert not only(played.pass_time(66.0, Reading(60.0, None, 0)), Kill, Record)
    submission = task.submission
    played.reply(task, KILLED)
    assert "ran longer than 5" in str(played.outcome(submission))
    assert (task.cause, task.attempts) == ("timeout", 1)


def test_a_thread_past_its_time_is_left_to_itself_and_stays_charged_until_it_returns():
    played = Played(100, workers=1, levels=("thread",))
    task, other = a_task(60, timeout_s=5.0), a_task(60)
    played.submit(task, other)
    slot, submission, sequence = played.slot_of(task), task.submission, task.sequence
    effects = played.pass_time(5.0, Reading(0.0, None, 0))
    assert only(effects, Kill, Forget) == [Kill(slot), Forget(slot)]
    assert "cannot be ended" in str(played.outcome(submission))
    assert task.attempts == 1
    assert not sent(effects)
    played.scheduler.replied(slot, sequence, Returned(1))
    assert sent(played.decided()) == [other]


# When memory is short -------------------------------------------------------------------------------------------------


def test_after_a_kill_nothing_starts_for_a_moment_and_then_one_by_one():
    played = Played(10_000, workers=4)
    played.submit(*(a_task() for _ in range(20)))
    played.scheduler.pool.concurrency.lost = lambda: None  # halving is another rule
    played.reply(played.running[0], KILLED)
    running = []
    for now_s in (0.1, 0.3, 0.35, 0.45):
        played.effects += played.scheduler.decide(now_s)
        running.append(len(played.running))
    assert running == [3, 4, 4, 4]
    played.returned(played.running[0])
    played.returned(played.running[0])
    assert len(played.running) == 3
    played.effects += played.scheduler.decide(0.5)
    assert len(played.running) == 3
    played.effects += played.scheduler.decide(0.6)
    assert len(played.running) == 4


@pytest.mark.parametrize(
    ("fields", "reply", "pauses"),
    [
        ({}, KILLED, True),
        ({}, KILLED._replace(crashed=True), False),
        ({}, BEHIND, False),
        ({"limit": 20 * MB}, KILLED, False),
    ],
)
def test_only_after_a_kill_that_was_not_ours_starts_pause(fields, reply, pauses):
    played = Played(1000 * MB, workers=2, recover_after=1)
    played.scheduler.pool.concurrency.lost = lambda: None  # halving is another rule
    task, other = a_task(10 * MB, **fields), a_task(10 * MB)
    played.submit(task, other, a_task(10 * MB), a_task(10 * MB))
    played.pass_time(0.0, holds(30))
    played.reply(task, reply)
    assert len(played.running) == (1 if pauses else 2)


SOURCE = "/proc/pressure/memory"


def test_nothing_starts_beside_what_runs_until_the_pressure_has_passed():
    played = Played(workers=4)
    tasks = [a_task(10) for _ in range(4)]
    played.submit(tasks[0])
    played.scheduler.pool.pressure_changed(SOURCE)
    played.submit(*tasks[1:])
    assert played.running == tasks[:1]
    played.returned(tasks[0])
    assert played.running == tasks[1:2], "one at a time goes on"
    played.scheduler.pool.pressure_changed("")
    played.decided()
    assert played.running == tasks[1:]


def test_each_closing_is_one_event_that_names_the_file():
    played = Played()
    for source, is_new in ((SOURCE, True), (SOURCE, False), ("", False), (SOURCE, True)):
        played.scheduler.pool.pressure_changed(source)
        causes = [event.cause for event in only(played.decided(), Record) if event.kind == "pressure"]
        assert causes == ["tasks stall for want of memory (/proc/pressure/memory)"] * is_new
