"""What becomes of a task, story by story; any order of events is in test_scheduler_any_order."""

from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool

import pytest
from scripted_scheduler import BEHIND, KILLED, MB, UNSTARTED, Fixed, Played, a_task, only, sent

from pytest_membudget import (
    ExecutorPolicy,
    OversizeError,
    StartTimeoutError,
    TaskMemoryError,
    TaskOverLimitError,
    WorkerKilledError,
)
from pytest_membudget.runtime.executor.charges import StatedCharge
from pytest_membudget.runtime.executor.cluster_placement import ClusterPlacement
from pytest_membudget.runtime.executor.local_placement import LocalPlacement
from pytest_membudget.runtime.executor.scheduler import LEAVING_S, Scheduler
from pytest_membudget.runtime.executor.state import (
    Backend,
    Finish,
    Forget,
    Kill,
    Reading,
    Record,
    Send,
    Slot,
    Start,
    Stop,
    Submission,
    Task,
)
from pytest_membudget.runtime.workers.protocol import (
    Delay,
    Died,
    Figures,
    InitializerFailed,
    Raised,
    RanOut,
    Returned,
    Unpicklable,
)

# From submit to the result ----------------------------------------------------------------------------------------------


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


# Too large, cancelled, broken -------------------------------------------------------------------------------------------


def test_larger_than_the_budget_is_refused_or_runs_alone():
    played, task = Played(100), a_task(101)
    submission = task.submission
    assert not sent(played.submit(task))
    assert isinstance(played.outcome(submission), OversizeError)
    assert task.cause == "oversize"
    played, small, large, last = Played(100, oversize="alone"), a_task(10), a_task(101), a_task(10)
    assert sent(played.submit(small, large, last)) == [small, last]
    played.returned(small)
    assert sent(played.returned(last)) == [large]


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
    assert played.scheduler.placement.leases == 0


# Lost and repeated ------------------------------------------------------------------------------------------------------


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
    assert played.scheduler.backend.level == "thread"
    assert isinstance(played.outcome(submission), TaskMemoryError)


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


# Workers that cannot start ----------------------------------------------------------------------------------------------


def test_where_no_worker_starts_the_next_level_goes_on_with_one_event():
    played, task = Played(workers=4), a_task()
    (start, _) = played.submit(task, starts=False)
    played.scheduler.start_failed(start.slot, "no memory")
    effects = played.decided()
    (record,) = only(effects, Record)
    assert (record.kind, record.is_logged) == ("fallback", True)
    assert "no process worker can be started: no memory" in record.cause
    assert only(effects, Start)[0].slot.backend.level == "thread"
    assert sent(effects) == [task]
    assert played.scheduler.pool.concurrency.most == 2  # degraded threads


def test_without_a_lower_level_the_task_is_told_so():
    played, task = Played(levels=("process",)), a_task()
    submission = task.submission
    (start, _) = played.submit(task, starts=False)
    played.scheduler.start_failed(start.slot, "no memory")
    played.decided()
    assert str(played.outcome(submission)) == "no process worker can be started: no memory"


@pytest.mark.parametrize("levels", [("process",), ("process", "thread")])
def test_a_cluster_that_is_lost_leaves_its_tasks_to_the_next_level_or_ends_them_all(levels):
    played, tasks = Played(levels=levels), [a_task() for _ in range(5)]
    played.submit(*tasks)
    played.scheduler.cluster_lost(played.scheduler.backend, "its scheduler is gone")
    played.decided()
    if levels[1:]:
        assert played.scheduler.backend.level == "thread"
        assert played.scheduler.open_tasks == 5
    else:
        errors = [str(finish.error) for finish in only(played.effects, Finish)]
        assert errors == ["no process worker can be started: its scheduler is gone"] * 5
        assert played.scheduler.broken is not None


def test_tasks_of_a_cluster_that_is_lost_wait_on_this_machine_in_their_order_and_there_no_more():
    cluster, here = ClusterPlacement(), LocalPlacement(100 * MB, max_overtakes=4)
    backends = [
        Backend("dask", cluster, own_memory=True),
        Backend("process", here, own_memory=True, is_local_pool=True),
    ]
    scheduler = Scheduler(backends, ExecutorPolicy(), max_workers=2)
    tasks = [a_task(10 * MB) for _ in range(3)]
    slot = Slot(backends[0], host="there")
    scheduler.workers_changed(backends[0], [slot], {slot: 20 * MB})
    for task in tasks:
        scheduler.submitted(task)
    assert sent(scheduler.decide()) == tasks[:1]
    assert cluster.waiting() == tasks[1:]
    scheduler.cluster_lost(backends[0], "its scheduler is gone")
    assert sent(scheduler.decide()) == tasks[1:2]
    assert (cluster.waiting(), here.waiting()) == ([], tasks[2:])


def test_a_task_waits_for_the_worker_that_begins_again_to_have_room_for_it():
    backend = Backend("dask", ClusterPlacement(), own_memory=True)
    scheduler, task = Scheduler([backend], ExecutorPolicy(), max_workers=1), a_task(80 * MB)
    full, fresh = (Slot(backend, host="there", is_renewable=True) for _ in range(2))
    full.retained_bytes = 60 * MB
    scheduler.workers_changed(backend, [full], {full: 100 * MB})
    scheduler.submitted(task)
    assert scheduler.decide() == [Forget(full, renew=True)]
    scheduler.validate()
    scheduler.workers_changed(backend, [fresh], {fresh: 100 * MB})
    assert sent(scheduler.decide()) == [task]


def test_where_a_second_worker_cannot_start_the_first_does_it_all():
    played = Played(workers=4)
    tasks = [a_task() for _ in range(3)]
    first, second, third = [each.slot for each in only(played.submit(*tasks, starts=False), Start)]
    played.scheduler.started(first)
    for slot in (second, third):
        played.scheduler.start_failed(slot, "full")
    played.decided()
    assert played.running == tasks[:1]
    assert sent(played.returned(tasks[0])) == [tasks[1]]
    assert first.backend.level == "process"


def test_a_second_worker_is_not_tried_where_the_first_could_not_start():
    played = Played(workers=2)
    tasks = [a_task(), a_task()]
    first, second = only(played.submit(*tasks, starts=False), Start)
    played.scheduler.start_failed(first.slot, "the script never loads")
    effects = played.decided()
    assert second.slot.is_gone
    assert sent(effects) == tasks
    assert {slot.backend.level for slot in played.scheduler.pool.slots} == {"thread"}


def test_three_workers_that_end_before_they_are_ready_mean_the_next_level():
    played, task = Played(workers=1), a_task()
    played.submit(task)
    for _ in range(2):
        played.reply(task, UNSTARTED)
        assert played.scheduler.backend.level == "process"
    played.reply(task, UNSTARTED)
    assert played.scheduler.backend.level == "thread"
    assert task.attempts == 0


def test_a_worker_that_comes_to_a_call_ends_the_row_of_failed_starts():
    played = Played(workers=1, levels=("process",))
    task, other = a_task(), a_task()
    for _ in range(2):
        played.submit(task)
        for _ in range(2):
            played.reply(task, UNSTARTED)
        played.returned(task)
        task, other = other, task
    assert played.scheduler.backend.failed_starts == 0


def test_the_last_level_fails_a_task_after_three_and_tries_again_for_the_next():
    played = Played(workers=1, levels=("process",))
    for _ in range(2):
        task = a_task()
        submission = task.submission
        played.submit(task)
        for _ in range(3):
            played.reply(task, UNSTARTED)
        assert "3 ended before they were ready" in str(played.outcome(submission))


def test_a_small_batch_runs_in_threads_and_its_repeat_in_a_process():
    played, task = Played(levels=("process", "thread")), a_task(prefers_thread=True)
    (start, _) = played.submit(task)
    assert start.slot.backend.level == "thread"
    effects = played.reply(task, RanOut(MemoryError()))
    assert [each.slot.backend.level for each in only(effects, Send)] == ["process"]


# Time -------------------------------------------------------------------------------------------------------------------

WAITS_FOR_IMPORT = Reading(None, Delay("import", 100.0), 0)


def test_a_tasks_time_counts_from_the_call_of_its_function():
    played, task = Played(start_timeout_s=100.0), a_task(timeout_s=5.0)
    played.submit(task)
    assert not played.pass_time(50.0, Reading(None, Delay("import", 0.0), 0))
    assert played.scheduler.deadline_s == 50.05
    assert not played.pass_time(64.0, Reading(60.0, None, 0))
    assert played.scheduler.deadline_s == 65.0
    effects = played.pass_time(65.0, Reading(60.0, None, 0))
    assert len(only(effects, Kill)) == 1
    assert not only(played.pass_time(66.0, Reading(60.0, None, 0)), Kill)
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
    assert not sent(effects)
    played.scheduler.replied(slot, sequence, Returned(1))
    assert sent(played.decided()) == [other]


def test_a_worker_that_does_not_come_to_its_call_is_ended_once():
    played, task = Played(start_timeout_s=10.0), a_task()
    played.submit(task)
    kills = [
        len(only(played.pass_time(now_s, WAITS_FOR_IMPORT), Kill)) for now_s in (100.0, 109.9, 110.0, 111.0)
    ]
    assert kills == [0, 0, 1, 0]
    (event,) = only(played.effects, Record)
    assert event.kind == "timeout"
    assert "had not imported what abs(-3) needs, module 'builtins' first, within 10" in event.cause


def test_without_a_limit_it_is_waited_for():
    played = Played(start_timeout_s=None)
    played.submit(a_task())
    assert not played.pass_time(1e9, WAITS_FOR_IMPORT)


def test_an_initializer_that_does_not_return_ends_everything():
    played, task = Played(start_timeout_s=10.0), a_task()
    submission = task.submission
    played.submit(task)
    played.pass_time(10.0, Reading(None, Delay("initializer", 0.0), 0))
    assert isinstance(played.outcome(submission), BrokenProcessPool)
    assert isinstance(played.outcome(submission).__cause__, StartTimeoutError)


def stuck(played, task):
    """The worker of `task` is ended since it did not come to it."""
    played.pass_time(played.scheduler.pool.now_s + 1000.0, Reading(None, Delay("import", 0.0), 0))
    return played.reply(task, KILLED)


def test_another_worker_gets_a_task_that_none_came_to_three_in_all():
    played, proof, task = Played(workers=1, levels=("process",)), a_task(), a_task()
    played.submit(proof)
    played.returned(proof)
    played.submit(task)
    submission = task.submission
    for _ in range(2):
        assert sent(stuck(played, task)) == [task]
    played.scheduler.backend.failed_starts = 0
    stuck(played, task)
    assert isinstance(played.outcome(submission), StartTimeoutError)
    assert (task.cause, task.attempts) == ("timeout", 0)


def test_a_level_that_never_had_a_ready_worker_is_given_up_at_once():
    played, task = Played(workers=1), a_task()
    played.submit(task)
    assert sent(stuck(played, task)) == [task]
    assert played.scheduler.backend.level == "thread"


def test_threads_of_a_small_batch_prove_nothing_of_processes():
    played = Played(workers=1)
    small, task = a_task(prefers_thread=True), a_task()
    played.submit(small)
    played.returned(small)
    played.submit(task)
    stuck(played, task)
    assert played.scheduler.backend.level == "thread"


def test_where_no_worker_can_come_to_a_call_every_task_is_told():
    played, task, other = Played(workers=1, levels=("process",)), a_task(), a_task()
    submissions = task.submission, other.submission
    played.submit(task, other)
    stuck(played, task)
    assert all(isinstance(played.outcome(each), StartTimeoutError) for each in submissions)


def holds(megabytes):
    return Reading(0.0, None, int(megabytes * MB))


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


@pytest.mark.parametrize(("limit", "limit_mb"), [(50 * MB, 50), (2.0, 40)])
def test_a_task_above_its_limit_is_ended_and_its_neighbours_are_not(limit, limit_mb):
    played = Played(1000 * MB)
    task, other = a_task(20 * MB, limit=limit), a_task(20 * MB)
    submission = task.submission
    played.submit(task, other)
    assert task.limit_bytes == limit_mb * MB
    assert played.scheduler.has_limits
    assert not only(played.pass_time(1.0, holds(limit_mb)), Kill)
    assert only(played.pass_time(1.0, holds(limit_mb + 2)), Kill) == [Kill(played.slot_of(task))]
    played.reply(task, KILLED)
    error = played.outcome(submission)
    assert isinstance(error, TaskOverLimitError)
    assert (error.limit, error.reached) == (limit_mb * MB, (limit_mb + 2) * MB)
    assert (task.cause, task.attempts) == ("over-limit", 1)
    assert other.state == "running"
    assert played.scheduler.pool.concurrency.now == 2


AT_LIMIT = Figures(1.0, reached_limit=True)


@pytest.mark.parametrize(
    "end",
    [
        lambda played, task: (played.pass_time(1.0, Reading(0.0, None, 0, True)), played.reply(task, KILLED)),
        lambda played, task: played.reply(task, KILLED._replace(figures=AT_LIMIT)),
        lambda played, task: played.reply(task, Raised(OSError("its program was killed"), AT_LIMIT)),
        lambda played, task: played.reply(task, Returned(0, AT_LIMIT)),
    ],
    ids=["seen while it runs", "its worker killed", "its program killed", "unnoticed"],
)
def test_what_the_kernel_ends_at_a_limit_is_over_its_limit_and_not_repeated(end):
    played = Played(1000 * MB)
    task, other = a_task(20 * MB, limit=50 * MB), a_task(20 * MB)
    submission = task.submission
    played.submit(task, other)
    slot = played.slot_of(task)
    end(played, task)
    error = played.outcome(submission)
    assert isinstance(error, TaskOverLimitError)
    assert error.reached > error.limit == 50 * MB
    assert "exceeded its limit of 47.7 MiB" in str(error)
    assert only(played.effects, Kill) == [Kill(slot)]
    assert [event.kind for event in only(played.effects, Record)] == ["over-limit"]
    assert slot not in played.scheduler.pool.slots
    assert other.state == "running"
    played.scheduler.validate()


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


def test_a_limit_that_cannot_be_kept_is_said_once():
    played = Played(levels=("thread",))
    tasks = [a_task(limit=50), a_task(limit=50)]
    played.submit(*tasks)
    (event,) = only(played.effects, Record)
    assert event.is_logged
    assert "cannot be kept in the program itself" in event.cause
    assert tasks[0].limit_bytes is None


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


def test_pressure_is_told_once_and_again_after_it_has_passed():
    played = Played()
    for source, events in (
        ("/proc/pressure/memory", 1),
        ("/proc/pressure/memory", 0),
        ("", 0),
        ("a group", 1),
    ):
        played.scheduler.pressure_changed(source)
        assert len(only(played.decided(), Record)) == events


def test_queued_tasks_are_not_charged_again_after_each_task_that_keeps_to_its_charge():
    played = Played(1000, workers=1)
    tasks = [a_task(10) for _ in range(6)]
    played.submit(*tasks)
    asked = []
    tasks[-1].charge.first_bytes = lambda: asked.append(1) or 10
    for task in tasks[:4]:
        played.returned(task, peak_bytes=5)
    assert not asked


# Prefetching ------------------------------------------------------------------------------------------------------------


def test_short_calls_wait_in_their_worker_under_its_lease_in_order():
    played = Played(100, workers=1)
    played.scheduler.pool.throughput.mean_s = 0.001
    tasks = [a_task(10) for _ in range(6)] + [a_task(20)] + [a_task(10)]
    played.submit(*tasks)
    assert played.running == tasks[:6]  # the seventh needs more than the lease, and is not overtaken
    assert sent(played.effects) == tasks[:6]
    assert played.scheduler.placement.leases == 1


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


def test_short_calls_beyond_what_a_worker_may_have_stay_in_the_queue():
    played = Played(100, workers=1)
    played.scheduler.pool.throughput.mean_s = 0.001
    played.submit(*(a_task() for _ in range(20)))
    assert len(played.running) == 8


# Replacing workers ------------------------------------------------------------------------------------------------------


def test_a_worker_is_stopped_after_its_calls_and_the_next_is_started_ahead():
    played = Played(workers=1, max_tasks_per_child=4)
    tasks = [a_task(exact=True) for _ in range(6)]
    played.submit(*tasks)
    starts = []
    for task in tasks[:4]:
        starts.append(len(only(played.effects, Start)))
        played.returned(task)
    assert starts == [1, 1, 2, 2]
    assert len(only(played.effects, Stop)) == 1


def test_a_large_file_gets_a_worker_that_has_run_nothing_and_ends_afterwards():
    played = Played(workers=1)
    first, large = a_task(), a_task(fresh_worker=True)
    played.submit(first)
    played.returned(first)
    (start, send) = played.submit(large)
    assert start.slot is send.slot
    assert only(played.returned(large), Stop) == [Stop(start.slot)]


@pytest.mark.parametrize(
    ("max_tasks", "exact", "counted"), [(50, True, 0.1), (50, False, 0.1), (49, True, 1.0), (49, False, 0.1)]
)
def test_short_calls_count_by_their_time_unless_the_caller_chose_a_number_of_inputs(
    max_tasks, exact, counted
):
    played, task = Played(max_tasks_per_child=max_tasks), a_task(exact=exact)
    played.scheduler.pool.throughput.mean_s = 0.01
    played.submit(task)
    assert played.slot_of(task).handed == pytest.approx(counted)


@pytest.mark.parametrize(
    ("max_tasks", "retained_mb", "busy_s", "is_closing"),
    [
        (50, 100, 2.5, False),  # two seconds of importing for half a second of work
        (50, 100, 30.0, True),
        (50, 1, 2.5, True),  # it has loaded nothing: its first task was a long one
        (49, 100, 2.5, True),  # the caller's own number is kept to
    ],
)
def test_a_worker_that_took_long_to_load_is_not_replaced_before_that_has_paid(
    max_tasks, retained_mb, busy_s, is_closing
):
    played = Played(1000 * MB, workers=1, max_tasks_per_child=max_tasks)
    played.scheduler.pool.throughput.record = lambda _: None  # every call counts in full
    for duration_s in (2.0, *[(busy_s - 2.0) / 48] * (max_tasks - 2)):
        task = a_task(exact=True)
        played.submit(task)
        played.returned(task, duration_s=duration_s, kept_bytes=retained_mb * MB)
    last = a_task(exact=True)
    played.submit(last, a_task(exact=True))
    played.returned(last)
    assert bool(only(played.effects, Stop)) is is_closing


# What workers hold -----------------------------------------------------------------------------------------------------


def test_the_first_worker_says_what_the_initializer_loads_before_a_second_starts():
    played = Played(300 * MB, workers=4, has_initializer=True)
    tasks = [a_task(5 * MB) for _ in range(4)]
    (start, _) = played.submit(*tasks)
    played.scheduler.ready(start.slot, 200 * MB)
    assert not played.decided()
    assert sent(played.returned(tasks[0])) == [tasks[1]]


def test_what_an_initializer_loads_is_charged_once_to_each_worker():
    played = Played(500 * MB, workers=4, has_initializer=True)
    tasks = [a_task(5 * MB) for _ in range(4)]
    (start, _) = played.submit(*tasks)
    played.scheduler.ready(start.slot, 200 * MB)
    assert len(only(played.decided(), Start)) == 1
    assert len(played.running) == 2


@pytest.mark.parametrize(("base_mb", "loaded_mb", "retained_mb"), [(210, 200, 0), (210, 0, 200)])
def test_a_calibrated_base_and_what_is_loaded_of_it_count_once(base_mb, loaded_mb, retained_mb):
    played = Played(1000 * MB, base_bytes=base_mb * MB)
    task = a_task()
    (start, _) = played.submit(task)
    played.scheduler.ready(start.slot, loaded_mb * MB)
    played.returned(task, kept_bytes=retained_mb * MB)
    assert played.scheduler.placement.retained.charged_bytes(start.slot) == 210 * MB


@pytest.mark.parametrize("budget_mb", [1, 30])
def test_workers_larger_than_the_budget_run_one_task_at_a_time_and_that_is_said(budget_mb):
    played = Played(budget_mb * MB, workers=4, base_bytes=40 * MB)
    tasks = [a_task(0) for _ in range(8)]
    (start, _) = played.submit(*tasks)
    played.scheduler.ready(start.slot, 0)
    assert len(only(played.decided(), Record)) == 1
    for task in tasks:
        assert played.running == [task]
        played.returned(task)
    assert len(only(played.effects, Start)) == 1


def leaks(played, task, megabytes):
    return played.returned(task, peak_bytes=4 * MB, kept_bytes=megabytes * MB)


def test_a_worker_that_retains_more_and_more_is_replaced_before_its_next_task():
    played = Played(100 * MB, workers=2)
    for number in range(1, 30):
        task = a_task(4 * MB)
        played.submit(task)
        stops = only(leaks(played, task, 4 * number), Stop)
        if stops:
            break
    assert 4 * number == 48  # its share is half of the budget, and its next task would take 4 MB more


def test_nothing_waits_in_a_worker_whose_calls_leave_something():
    played, tasks = Played(100 * MB, workers=1), [a_task(4 * MB) for _ in range(4)]
    played.submit(tasks[0])
    leaks(played, tasks[0], 4)
    played.scheduler.pool.throughput.mean_s = 0.001
    played.submit(*tasks[1:])
    assert played.running == [tasks[1]]
    played.returned(tasks[1], peak_bytes=4 * MB, kept_bytes=4 * MB, duration_s=0.001)
    assert played.running == tasks[2:]  # this one has left nothing


@pytest.mark.parametrize("ends", [True, False])
def test_what_a_stopped_worker_retained_is_free_when_it_has_ended_or_was_waited_for(ends):
    played, first, second = (
        Played(100 * MB, workers=1, max_worker_bytes="50 MB"),
        a_task(4 * MB),
        a_task(90 * MB),
    )
    played.submit(first)
    (stop,) = only(played.returned(first, peak_bytes=4 * MB, kept_bytes=60 * MB), Stop)
    assert not sent(played.submit(second))
    if ends:
        played.scheduler.ended(stop.slot)
    else:  # a thread that its task has left keeps it alive
        played.scheduler.time_passed(LEAVING_S, {})
    assert sent(played.decided()) == [second]


def test_what_each_task_leaves_is_learned_as_its_own():
    played, first, second = Played(1000 * MB), a_task(4 * MB), a_task(4 * MB)
    for number, task in enumerate((first, second), 1):
        played.submit(task)
        played.returned(task, peak_bytes=4 * MB, kept_bytes=4 * MB * number)
    assert (first.charge.seen, second.charge.seen) == ([0], [4 * MB])


def test_a_worker_that_holds_more_than_the_caller_allows_is_replaced():
    played, task = Played(1000 * MB, max_worker_bytes="50 MB"), a_task()
    played.submit(task)
    assert not only(played.returned(task, kept_bytes=50 * MB), Stop)
    task = a_task()
    played.submit(task)
    assert only(played.returned(task, kept_bytes=52 * MB), Stop)


KILLED_LOADING = Died("worker process 7 was killed by SIGKILL", attempted=False, in_initializer=True)


@pytest.mark.parametrize(("base_mb", "is_replaced"), [(20, False), (40, True)])
def test_what_the_initializer_loads_counts_to_what_a_worker_may_hold(base_mb, is_replaced):
    played, task = Played(1000 * MB, workers=1, max_worker_bytes=100 * MB), a_task()
    played.submit(task)
    slot = played.slot_of(task)
    played.scheduler.ready(slot, base_mb * MB)
    played.returned(task, peak_bytes=80 * MB, kept_bytes=70 * MB)
    assert slot.is_gone is is_replaced


def test_three_workers_killed_in_their_initializer_end_it_and_say_so():
    played, task, other = Played(workers=2, has_initializer=True), a_task(), a_task()
    submissions = task.submission, other.submission
    played.submit(task, other)
    for _ in range(3):
        played.reply(task, KILLED_LOADING)
    for submission in submissions:
        error = played.outcome(submission)
        assert isinstance(error, BrokenProcessPool)
        assert "3 workers in a row were killed while the initializer ran" in str(error)
    assert len(only(played.effects, Start)) == 3


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


def test_of_a_function_that_is_not_known_one_call_tells_what_the_others_take():
    class Guess(Fixed):
        guess_of = "jobs:unknown"

    charge = Guess(10)
    tasks = [Task(Submission(abs, (-3,), {}, Future()), charge) for _ in range(4)]
    played = Played(100, workers=4)
    assert sent(played.submit(*tasks)) == tasks[:1]
    assert not sent(played.pass_time(60.0, Reading(None, None, 0)))  # its worker is still on its way up
    assert not sent(played.pass_time(61.0, Reading(60.5, None, 0)))
    played.pass_time(61.6, Reading(60.5, None, 0))
    assert played.running == tasks[:2]  # it takes its time: the next one goes on
    Guess.guess_of, charge.size_bytes = None, 40
    assert sent(played.returned(tasks[0], peak_bytes=40)) == tasks[2:]


# What is learned --------------------------------------------------------------------------------------------------------


def test_what_a_task_leaves_in_its_worker_is_not_what_the_next_task_takes():
    played, task = Played(1000 * MB), a_task()
    played.submit(task)
    played.returned(task, peak_bytes=110 * MB, peak_upper_bytes=130 * MB, kept_bytes=100 * MB)
    assert (task.charge.seen, task.charge.seen_upper) == ([10 * MB], [30 * MB])
    assert task.peak_bytes == 110 * MB


@pytest.mark.parametrize(("told_mb", "upper_mb"), [(None, 100), (130, 130)])
def test_what_a_task_took_at_most_is_its_peak_where_that_is_exact(told_mb, upper_mb):
    played, task = Played(1000 * MB), a_task()
    played.submit(task)
    played.returned(task, peak_bytes=100 * MB, peak_upper_bytes=told_mb and told_mb * MB)
    assert (task.peak_bytes, task.peak_upper_bytes) == (100 * MB, upper_mb * MB)


def test_tasks_that_wait_profit_from_what_was_learned_meanwhile():
    played = Played(1000, workers=30)
    charge = Fixed(400)
    tasks = [Task(Submission(abs, (-3,), {}, Future()), charge) for _ in range(10)]
    assert len(sent(played.submit(*tasks))) == 2
    charge.size_bytes = 100
    for task in tasks[:2]:
        played.returned(task, peak_bytes=500)
    assert sorted(played.running, key=lambda task: task.order) == tasks[2:]


@pytest.mark.parametrize(("size_mb", "runs_alone"), [(1000, False), (1001, True)])
def test_what_waits_is_alone_only_where_it_turns_out_to_be_more_than_the_whole_budget(size_mb, runs_alone):
    played, charge = Played(1000 * MB, workers=1), Fixed(600 * MB)
    first, second = (Task(Submission(abs, (-3,), {}, Future()), charge) for _ in range(2))
    played.submit(first, second)
    charge.size_bytes = size_mb * MB
    played.pass_time(1.0, holds(700))
    assert (second.charged_bytes, second.alone) == (size_mb * MB, runs_alone)


def test_a_repeat_keeps_its_raised_charge():
    played = Played(1000, workers=1)
    task, other, last = a_task(10), a_task(10), a_task(400)
    played.submit(other, task, last)
    played.returned(other)
    played.reply(task, KILLED)
    assert task.charged_bytes == 20
