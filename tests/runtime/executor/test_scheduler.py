"""What becomes of a task, story by story: submitted, queued, sent, repeated, done. Any order of events is in test_scheduler_any_order."""

from concurrent.futures.process import BrokenProcessPool

import pytest
from scripted_scheduler import BEHIND, KILLED, MB, Fixed, Played, a_task, only, sent

from pytest_membudget import OversizeError, TaskMemoryError, WorkerKilledError
from pytest_membudget.runtime.executor.state import Finish, Kill, Record, Start
from pytest_membudget.runtime.workers.protocol import (
    Died,
    InitializerFailed,
    Raised,
    RanOut,
    Reading,
    Returned,
    Unpicklable,
)

# From submit to the result --------------------------------------------------------------------------------------------


def test_a_task_gets_a_new_worker_its_result_and_is_forgotten():
    played, task = Played(), a_task()
    submission = task.submission
    start, send = played.submit(task)
    assert isinstance(start, Start)
    assert (send.slot, send.calls) == (start.slot, ((task, task.sequence),))
    assert played.returned(task) == [Finish(submission, 3, None)]
    assert (task.state, task.cause, task.attempts, task.level) == ("done", "ok", 1, "process")
    assert task.submission is None
    assert not played.scheduler.open_tasks


def test_a_reply_to_an_earlier_attempt_is_none_to_this_one():
    played, task = Played(), a_task()
    played.submit(task)
    earlier = task.sequence
    played.reply(task, KILLED)
    played.scheduler.replied(played.slot_of(task), earlier, Returned(5))
    assert not only(played.decided(), Finish)
    assert task.state == "running"


@pytest.mark.parametrize("mean_s", [1.0, 0.001])  # they wait for memory, or before that
def test_those_that_wait_are_known_in_order_without_the_cancelled(mean_s):
    played = Played(workers=1, max_in_flight=1)
    played.scheduler.pool.throughput.mean_s = mean_s
    tasks = [a_task() for _ in range(4)]
    played.submit(*tasks)
    played.scheduler.cancelled(tasks[2])
    assert played.scheduler.queue.waiting() == [tasks[1], tasks[3]]
    assert played.scheduler.has_waiting


def test_a_task_that_is_cancelled_just_before_it_is_sent_gives_its_memory_back():
    played, first, second = Played(100), a_task(60), a_task(60)
    played.submit(first, second)
    played.scheduler.cancelled(first)
    assert sent(played.decided()) == [second]


def test_the_next_task_gets_the_worker_that_is_idle():
    played, first, second = Played(), a_task(), a_task()
    played.submit(first)
    played.returned(first)
    assert not only(played.submit(second), Start)


def test_two_large_tasks_do_not_meet():
    played, first, second = Played(100), a_task(60), a_task(60)
    assert sent(played.submit(first, second)) == [first]
    assert sent(played.returned(first)) == [second]


def test_no_more_tasks_run_than_there_may_be_workers():
    played = Played(workers=2)
    tasks = [a_task() for _ in range(5)]
    assert sent(played.submit(*tasks)) == tasks[:2]


def test_no_more_calls_are_in_flight_than_may_be():
    played = Played(workers=3, max_in_flight=2)
    assert len(sent(played.submit(*(a_task() for _ in range(5))))) == 2
    assert not played.scheduler.can_accept


@pytest.mark.parametrize(
    ("reply", "cause"),
    [(Raised(OSError("mine")), "error"), (Unpicklable(TypeError("not it")), "unpicklable")],
)
def test_what_the_function_raised_is_the_outcome_at_once(reply, cause):
    played, task = Played(), a_task()
    submission = task.submission
    played.submit(task)
    played.reply(task, reply)
    assert played.outcome(submission) is reply.error
    assert (task.cause, task.attempts) == (cause, 1)


def test_a_reply_that_is_no_longer_waited_for_is_ignored():
    played, task = Played(), a_task()
    played.submit(task)
    slot = played.slot_of(task)
    played.scheduler.replied(slot, task.sequence + 1, Returned(7))
    assert played.decided() == []
    assert played.running == [task]


# Too large, cancelled, broken -----------------------------------------------------------------------------------------


def test_larger_than_the_budget_is_refused_or_runs_alone():
    played, task = Played(100), a_task(101)
    submission = task.submission
    assert not sent(played.submit(task))
    error = played.outcome(submission)
    assert isinstance(error, OversizeError)
    assert str(error).startswith("abs(-3) is expected to take 101 B, more than the whole budget of 100 B; ")
    assert "guess" not in str(error)
    assert task.cause == "oversize"
    played, small, large, last = Played(100, oversize="alone"), a_task(10), a_task(101), a_task(10)
    assert sent(played.submit(small, large, last)) == [small, last]
    played.returned(small)
    assert sent(played.returned(last)) == [large]


def test_a_refusal_by_a_guess_says_so():
    played, task = Played(100), a_task()
    task.charge = Fixed(101, calls_seen=0)
    submission = task.submission
    played.submit(task)
    assert "no such call was measured yet" in str(played.outcome(submission))


def test_what_was_accepted_is_not_refused_because_estimates_have_grown():
    played, task = Played(100), a_task(5000, estimate_bytes=90)
    assert sent(played.submit(task)) == [task]
    assert task.alone


@pytest.mark.parametrize("size_bytes", [ZeroDivisionError("the estimator's own")])
def test_an_estimator_that_fails_is_that_tasks_error_alone(size_bytes):
    played, task, other = Played(), a_task(size_bytes), a_task()
    submission = task.submission
    assert sent(played.submit(task, other)) == [other]
    assert played.outcome(submission) is size_bytes


def test_a_cancelled_task_leaves_the_queue_and_its_memory_to_the_others():
    played = Played(100, workers=4)
    running, cancelled, last = a_task(60), a_task(60), a_task(60)
    played.submit(running, cancelled, last)
    played.scheduler.cancelled(cancelled)
    played.scheduler.cancelled(cancelled)
    assert played.decided() == []
    assert cancelled.cause == "cancelled"
    assert sent(played.returned(running)) == [last]


def test_a_task_found_cancelled_when_it_was_to_be_sent_frees_its_worker():
    played, task, other = Played(workers=1), a_task(), a_task()
    played.submit(task, other)
    played.scheduler.cancelled(task)
    assert sent(played.decided()) == [other]


def test_a_failing_initializer_breaks_everything():
    played, first, second, third = Played(workers=1), a_task(), a_task(), a_task()
    submissions = [each.submission for each in (first, second, third)]
    played.submit(first, second)
    played.reply(first, InitializerFailed(ValueError("no model")))
    played.submit(third)
    for submission in submissions:
        assert isinstance(played.outcome(submission), BrokenProcessPool)
    assert only(played.effects, Kill)


def test_shut_down_gives_every_task_the_error_and_ends_every_worker():
    played = Played(workers=1)
    tasks = [a_task() for _ in range(3)]
    submissions = [each.submission for each in tasks]
    played.submit(*tasks)
    slot, sequence = played.slot_of(tasks[0]), tasks[0].sequence
    played.scheduler.shut_down(WorkerKilledError("ended"))
    assert [type(each) for each in played.decided()] == [Kill, Finish, Finish, Finish]
    assert all(isinstance(played.outcome(each), WorkerKilledError) for each in submissions)
    played.scheduler.replied(slot, sequence, Returned(1))
    assert played.decided() == []


def test_shut_down_takes_back_what_a_lost_worker_held():
    played = Played(workers=1)
    played.scheduler.pool.throughput.mean_s = 0.01
    first, behind = a_task(), a_task()
    played.submit(first, behind)
    slot = played.slot_of(first)
    assert list(slot.running) == [first, behind]
    played.scheduler.replied(slot, first.sequence, KILLED)
    played.scheduler.shut_down(WorkerKilledError("ended"))
    played.decided()
    assert slot.lease is None
    assert played.scheduler.queue.placement.memory.ledger.statistics().leases == 0


def test_a_task_that_was_killed_while_it_ran_alone_is_not_run_alone_again():
    played, task = Played(100, oversize="alone"), a_task(200)
    submission = task.submission
    played.submit(task)
    played.reply(task, KILLED)
    assert "tried once, alone" in str(played.outcome(submission))


def test_between_the_budget_and_the_machines_limit_a_task_runs_alone():
    played, small, large, huge = Played(70), a_task(10), a_task(90), a_task(110)
    played.scheduler.budget_changed(70, 70, 100)
    assert sent(played.submit(small, large, huge)) == [small]
    assert sent(played.returned(small)) == [large]
    assert huge.cause == "oversize"


# Lost and repeated ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reply", [KILLED, RanOut(MemoryError())])
def test_a_lost_attempt_is_repeated_with_more_then_alone_then_reported(reply):
    played, task = Played(100, retries=2), a_task(10)
    submission = task.submission
    played.submit(task)
    charges = []
    for _ in range(3):
        charges.append((task.charged_bytes, task.alone))
        played.reply(task, reply)
    assert charges == [(10, False), (20, False), (40, True)]
    error = {Died: WorkerKilledError, RanOut: TaskMemoryError}[type(reply)]
    assert isinstance(played.outcome(submission), error)
    assert task.attempts == 3


def test_a_repeat_comes_before_all_that_arrived_after_it():
    played = Played(1000, workers=1)
    tasks = [a_task() for _ in range(40)]
    played.submit(*tasks)
    assert sent(played.reply(tasks[0], RanOut(MemoryError()))) == [tasks[0]]


def test_what_waited_behind_a_killed_call_was_not_attempted_and_keeps_its_place():
    played = Played(workers=1)
    played.scheduler.pool.throughput.mean_s = 0.01
    first, behind, last = a_task(), a_task(), a_task()
    played.submit(first, behind, last)
    slot = played.slot_of(first)
    assert list(slot.running) == [first, behind]
    sequence = behind.sequence
    played.reply(first, KILLED)
    played.scheduler.replied(slot, sequence, BEHIND)
    played.decided()
    assert (first.attempts, behind.attempts, behind.lost) == (1, 0, 1)
    assert played.running[0] is first


def test_the_lease_of_a_worker_that_ended_goes_back_with_the_reply_to_its_last_call():
    played = Played(workers=1, retries=0)
    played.scheduler.pool.throughput.mean_s = 0.01
    first, behind, large = a_task(), a_task(), a_task(95)
    played.submit(first, behind, large)
    slot, sequence = played.slot_of(first), behind.sequence
    played.reply(first, KILLED)
    assert played.running == [], "what the worker held is charged until all is known of it"
    played.scheduler.replied(slot, sequence, Died("ended", attempted=True))
    played.decided()
    assert (played.running, slot.lease) == ([large], None)


def test_a_task_whose_workers_always_end_before_it_begins_counts_as_the_cause():
    played, task = Played(workers=1, retries=0), a_task()
    played.submit(task)
    for _ in range(11):
        assert task.state == "running"
        played.reply(task, BEHIND)
    assert (task.cause, task.attempts) == ("killed", 1)


def test_a_killed_task_is_charged_what_it_was_seen_to_hold():
    played, task = Played(1000 * MB), a_task(10 * MB)
    played.submit(task)
    played.pass_time(1.0, Reading(0.0, None, 300 * MB))
    played.reply(task, KILLED)
    assert task.charged_bytes == 600 * MB


def test_in_a_thread_nothing_that_ran_out_of_memory_is_repeated():
    played, task = Played(levels=("thread",)), a_task()
    submission, error = task.submission, MemoryError("mine")
    played.submit(task)
    played.reply(task, RanOut(error))
    assert played.outcome(submission) is error


def test_what_ran_out_in_a_process_is_not_repeated_in_a_thread():
    played, task = Played(workers=1), a_task()
    submission = task.submission
    played.submit(task)
    task.fresh_worker = True  # the next attempt needs another worker
    played.scheduler.replied(played.slot_of(task), task.sequence, KILLED._replace(attempted=False))
    task.ran_out = True
    (start,) = only(played.decided(starts=False), Start)
    played.scheduler.start_failed(start.slot, "full")
    played.decided()
    assert played.scheduler.levels.now.level == "thread"
    assert isinstance(played.outcome(submission), TaskMemoryError)
    assert played.scheduler.queue.placement.memory.ledger.statistics().leases == 0


def test_concurrency_halves_after_a_loss_and_recovers_after_clean_tasks():
    played = Played(10_000, workers=4, recover_after=2)
    played.submit(*(a_task() for _ in range(40)))
    assert len(played.running) == 4
    played.reply(played.running[0], KILLED)
    assert played.scheduler.pool.concurrency.now == 2
    for second in range(10):
        played.scheduler.decide(1.0 + second)  # the pause after a kill is over
        played.returned(played.running[-1])
    assert len(played.running) == 4
    assert [each.kind for each in only(played.effects, Record)] == ["worker-killed", "recovery"]


def test_a_worker_is_started_ahead_after_a_loss():
    played = Played(100, workers=2)
    tasks = [a_task(80), a_task(80)]
    played.submit(*tasks)
    effects = played.reply(tasks[0], RanOut(MemoryError()))
    assert not only(effects, Start)  # the one that it ran in is idle
    effects = played.reply(tasks[0], KILLED)
    assert len(only(effects, Start)) == 1


def test_workers_are_read_again_when_the_first_of_all_time_limits_is_reached():
    played = Played(workers=2)
    played.submit(a_task(timeout_s=50.0), a_task(timeout_s=5.0))
    played.pass_time(1.0, Reading(0.0, None, 0))
    assert played.scheduler.deadline_s == 5.0


def test_short_calls_make_the_queues_ahead_of_workers_longer():
    played = Played(workers=1)
    assert played.scheduler.pool.throughput.depth == 1
    for _ in range(40):
        task = a_task()
        played.submit(task)
        played.returned(task, duration_s=0.001)
    assert played.scheduler.pool.throughput.depth > 1


def test_a_driver_is_woken_while_a_worker_is_free_or_one_of_them_has_few_calls_left():
    played = Played(100, workers=2)
    played.scheduler.pool.throughput.mean_s = 0.001
    assert played.scheduler.can_accept
    tasks = [a_task(10) for _ in range(16)]
    played.submit(*tasks)
    assert not played.scheduler.can_accept
    of_one_worker = list(played.scheduler.pool.slots[1].running)
    for task in of_one_worker[:4]:
        assert not played.scheduler.can_accept
        played.returned(task, duration_s=0.001)
    assert played.scheduler.can_accept


# Prefetching ----------------------------------------------------------------------------------------------------------


def test_short_calls_wait_in_their_worker_under_its_lease_in_order():
    played = Played(100, workers=1)
    played.scheduler.pool.throughput.mean_s = 0.001
    tasks = [a_task(10) for _ in range(6)] + [a_task(20)] + [a_task(10)]
    played.submit(*tasks)
    assert played.running == tasks[:6]  # the seventh needs more than the lease, and is not overtaken
    assert sent(played.effects) == tasks[:6]
    assert played.scheduler.queue.placement.memory.ledger.statistics().leases == 1


def test_short_calls_do_not_wait_behind_one_in_a_thread():
    played = Played(100, workers=1, levels=("thread",))
    played.scheduler.pool.throughput.mean_s = 0.001
    first, second = a_task(10), a_task(10)
    played.submit(first, second)
    assert played.running == [first]


@pytest.mark.parametrize("fields", [{"fresh_worker": True}, {"prefers_thread": True}, {"alone": True}])
def test_what_needs_a_place_of_its_own_does_not_wait_in_a_worker(fields):
    played = Played(100, workers=1)
    played.scheduler.pool.throughput.mean_s = 0.001
    first, special = a_task(), a_task(**fields)
    played.submit(first)
    played.submit(special)
    assert played.running == [first]


def test_nothing_waits_behind_a_call_that_runs_alone():
    played = Played(100, workers=1, oversize="alone")
    played.scheduler.pool.throughput.mean_s = 0.001
    alone, small = a_task(200), a_task(10)
    played.submit(alone, small)
    assert played.running == [alone]


def test_short_calls_pass_one_that_a_smaller_budget_cannot_hold():
    played = Played(100, workers=1)
    played.scheduler.pool.throughput.mean_s = 0.001
    played.scheduler.budget_changed(50, 100)
    first, large, small = a_task(10), a_task(90), a_task(10)
    played.submit(first)
    played.submit(large, small)
    assert played.running == [first, small]


def test_short_calls_beyond_what_a_worker_may_have_stay_in_the_queue():
    played = Played(100, workers=1)
    played.scheduler.pool.throughput.mean_s = 0.001
    played.submit(*(a_task() for _ in range(20)))
    assert len(played.running) == 8
