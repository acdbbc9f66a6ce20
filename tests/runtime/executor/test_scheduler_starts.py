"""Workers that cannot be started, or do not come to a call, and the levels below theirs."""

from concurrent.futures.process import BrokenProcessPool

import pytest
from scripted_scheduler import KILLED, MB, UNSTARTED, Played, a_task, only, sent

from pytest_membudget import ExecutorPolicy, StartTimeoutError
from pytest_membudget.runtime.executor.cluster_placement import ClusterPlacement
from pytest_membudget.runtime.executor.local_memory import LocalMemory
from pytest_membudget.runtime.executor.local_placement import LocalPlacement
from pytest_membudget.runtime.executor.scheduler import Scheduler
from pytest_membudget.runtime.executor.state import Backend, Finish, Forget, Kill, Record, Send, Slot, Start
from pytest_membudget.runtime.workers.protocol import Delay, Died, RanOut, Reading

# Workers that cannot start --------------------------------------------------------------------------------------------


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
    played.scheduler.cluster_lost(played.scheduler.levels.now, "its scheduler is gone")
    played.decided()
    if levels[1:]:
        assert played.scheduler.levels.now.level == "thread"
        assert played.scheduler.open_tasks == 5
    else:
        errors = [str(finish.error) for finish in only(played.effects, Finish)]
        assert errors == ["no process worker can be started: its scheduler is gone"] * 5
        assert played.scheduler.broken is not None


def test_tasks_of_a_cluster_that_is_lost_wait_on_this_machine_in_their_order_and_there_no_more():
    cluster, here = ClusterPlacement(), LocalPlacement(LocalMemory(100 * MB, max_overtakes=4))
    backends = [
        Backend("dask", cluster, own_memory=True),
        Backend("process", here, own_memory=True),
    ]
    scheduler = Scheduler(backends, ExecutorPolicy(), max_workers=2)
    tasks = [a_task(10 * MB) for _ in range(3)]
    slot = Slot(backends[0], host="there")
    scheduler.pool.workers_changed(backends[0], [slot], {slot: 20 * MB})
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
    scheduler.pool.workers_changed(backend, [full], {full: 100 * MB})
    scheduler.submitted(task)
    assert scheduler.decide() == [Forget(full, renew=True)]
    scheduler.validate()
    scheduler.pool.workers_changed(backend, [fresh], {fresh: 100 * MB})
    assert sent(scheduler.decide()) == [task]


def test_a_driver_is_woken_for_a_task_of_a_cluster_unless_others_wait_before_it_for_a_first_worker():
    backend = Backend("dask", ClusterPlacement(), own_memory=True)
    scheduler, task, slot = Scheduler([backend], ExecutorPolicy(), max_workers=1), a_task(), Slot(backend)
    assert scheduler.can_accept
    scheduler.submitted(task)
    assert not scheduler.decide()
    assert not scheduler.can_accept
    scheduler.pool.workers_changed(backend, [slot], {slot: 100 * MB})
    assert sent(scheduler.decide()) == [task]
    assert scheduler.can_accept


def test_where_a_second_worker_cannot_start_the_first_does_it_all():
    played = Played(workers=4)
    tasks = [a_task() for _ in range(3)]
    first, second, third = [each.slot for each in only(played.submit(*tasks, starts=False), Start)]
    played.scheduler.pool.started(first)
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
        assert played.scheduler.levels.now.level == "process"
    played.reply(task, UNSTARTED)
    assert played.scheduler.levels.now.level == "thread"
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
    assert played.scheduler.levels.now.failed_starts == 0


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


KILLED_LOADING = Died("worker process 7 was killed by SIGKILL", attempted=False, in_initializer=True)


def test_three_workers_killed_in_their_initializer_end_it_and_say_so():
    played, task, other = Played(workers=2, has_initializer=True), a_task(), a_task()
    submissions = task.submission, other.submission
    played.submit(task, other)
    for _ in range(3):
        played.reply(task, KILLED_LOADING)
    for submission in submissions:
        error = played.outcome(submission)
        assert isinstance(error, BrokenProcessPool)
        assert "3 workers in a row ended while the initializer ran" in str(error)
    assert len(only(played.effects, Start)) == 3


# Workers that do not come to a call -----------------------------------------------------------------------------------


WAITS_FOR_IMPORT = Reading(None, Delay("import", 100.0), 0)


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
    played.scheduler.levels.now.failed_starts = 0
    stuck(played, task)
    assert isinstance(played.outcome(submission), StartTimeoutError)
    assert (task.cause, task.attempts) == ("timeout", 0)


def test_a_level_that_never_had_a_ready_worker_is_given_up_at_once():
    played, task = Played(workers=1), a_task()
    played.submit(task)
    assert sent(stuck(played, task)) == [task]
    assert played.scheduler.levels.now.level == "thread"


def test_threads_of_a_small_batch_prove_nothing_of_processes():
    played = Played(workers=1)
    small, task = a_task(prefers_thread=True), a_task()
    played.submit(small)
    played.returned(small)
    played.submit(task)
    stuck(played, task)
    assert played.scheduler.levels.now.level == "thread"


def test_where_no_worker_can_come_to_a_call_every_task_is_told():
    played, task, other = Played(workers=1, levels=("process",)), a_task(), a_task()
    submissions = task.submission, other.submission
    played.submit(task, other)
    stuck(played, task)
    assert all(isinstance(played.outcome(each), StartTimeoutError) for each in submissions)
