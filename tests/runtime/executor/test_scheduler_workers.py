"""What workers hold and when they are replaced; what is learned of finished tasks."""

from concurrent.futures import Future

import pytest
from scripted_scheduler import KILLED, MB, Fixed, Played, a_task, holds, only, sent

from pytest_membudget import MemoryEstimator
from pytest_membudget.runtime.executor.charges import FileCharge
from pytest_membudget.runtime.executor.state import Record, Start, Stop, Submission, Task
from pytest_membudget.runtime.executor.worker_pool import LEAVING_S
from pytest_membudget.runtime.workers.protocol import Figures, Reading

# What is learned ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("peak_bytes", [5, 10])
def test_queued_tasks_are_not_charged_again_after_each_task_that_keeps_to_its_charge(peak_bytes):
    played = Played(1000, workers=1)
    tasks = [a_task(10) for _ in range(6)]
    played.submit(*tasks)
    asked = []
    tasks[-1].charge.first_bytes = lambda: asked.append(1) or 10
    for task in tasks[:4]:
        played.returned(task, peak_bytes=peak_bytes)
    assert not asked


def of_unknown_functions(count, calls_seen=0):
    charge = Fixed(10 * MB, calls_seen)
    return charge, [Task(Submission(abs, (-3,), {}, Future()), charge) for _ in range(count)]


def reads(began_s, megabytes=0):
    return Reading(began_s, None, megabytes * MB)


def test_of_a_function_that_is_not_known_one_call_tells_what_the_others_take():
    charge, tasks = of_unknown_functions(4)
    played = Played(100 * MB, workers=4)
    assert sent(played.submit(*tasks)) == tasks[:1]
    assert not sent(played.pass_time(60.0, reads(None)))  # its worker is still on its way up
    assert not sent(played.pass_time(63.0, reads(60.5)))
    assert sent(played.pass_time(63.6, reads(60.5))) == tasks[1:2]  # it takes its time: the next one goes on
    readings = {
        played.slot_of(task): reads(began_s) for task, began_s in zip(tasks, (60.5, 63.6), strict=False)
    }
    played.scheduler.time_passed(64.7, readings)
    assert sent(played.decided()) == tasks[2:3]
    charge.calls_seen, charge.size_bytes = 8, 40 * MB
    assert sent(played.returned(tasks[0], peak_bytes=40 * MB)) == tasks[3:]


def test_a_call_that_still_grows_says_nothing_of_the_others():
    _, tasks = of_unknown_functions(2)
    played = Played(1000 * MB, workers=2)
    played.submit(*tasks)
    for second in range(1, 9):
        assert not sent(played.pass_time(second, reads(0.0, 5 * second)))
    assert not sent(played.pass_time(15.0, reads(0.0, 40)))  # the same for 7 s of 15
    assert sent(played.pass_time(16.1, reads(0.0, 40))) == tasks[1:]


def test_a_call_that_never_stops_growing_holds_others_up_for_a_minute():
    _, tasks = of_unknown_functions(2)
    played = Played(1000 * MB, workers=2)
    played.submit(*tasks)
    assert not any(sent(played.pass_time(second, reads(0.0, 5 * second))) for second in range(1, 60))
    assert sent(played.pass_time(60.0, reads(0.0, 300))) == tasks[1:]


def test_where_few_calls_have_ended_the_next_one_waits_until_the_one_before_has_shown_what_it_takes():
    _, tasks = of_unknown_functions(3, calls_seen=1)
    played = Played(75 * MB, workers=3)

    def reads_both(now_s):
        running = zip(tasks, (10, 20), strict=False)
        readings = {played.slot_of(task): reads(0.0, megabytes) for task, megabytes in running}
        played.scheduler.time_passed(now_s, readings)
        return sent(played.decided())

    assert sent(played.submit(*tasks)) == tasks[:1]
    assert not sent(played.pass_time(0.1, reads(0.0, 10)))
    assert sent(played.pass_time(0.3, reads(0.0, 10))) == tasks[1:2]
    assert not reads_both(0.6), "the second takes more than it was charged, and may go on"
    assert reads_both(1.7) == tasks[2:]


@pytest.mark.parametrize(("budget_mb", "calls_seen"), [(120, 1), (100, 8), (100, None)])
def test_calls_start_together_where_the_budget_holds_much_more_or_enough_of_them_is_known(
    budget_mb, calls_seen
):
    _, tasks = of_unknown_functions(3, calls_seen)
    played = Played(budget_mb * MB, workers=3)
    assert sent(played.submit(*tasks)) == tasks


@pytest.mark.parametrize(("budget_mb", "starts"), [(160, True), (150, False)])
def test_the_first_call_of_a_function_starts_beside_known_ones_where_the_budget_holds_much_more_than_its_charge(
    budget_mb, starts
):
    _, (unknown,) = of_unknown_functions(1)
    known = [a_task(60 * MB), a_task(60 * MB)]
    played = Played(budget_mb * MB, workers=3)
    assert sent(played.submit(*known, unknown)) == [*known, *([unknown] if starts else [])]
    if not starts:
        assert sent(played.returned(known[0])) == [unknown]


def test_known_calls_start_beside_the_first_of_a_function_when_it_has_shown_what_it_takes():
    _, (unknown,) = of_unknown_functions(1)
    known = a_task(60 * MB)
    played = Played(90 * MB, workers=2)
    assert sent(played.submit(unknown, known)) == [unknown]
    assert not sent(played.pass_time(2.9, reads(0.0, 5)))
    assert sent(played.pass_time(6.0, reads(0.0, 5))) == [known]


def test_the_first_call_of_a_function_waits_a_minute_at_most_for_known_ones_to_end():
    _, (unknown,) = of_unknown_functions(1)
    known = a_task(60 * MB)
    played = Played(90 * MB, workers=2)
    assert sent(played.submit(known, unknown)) == [known]
    assert not sent(played.pass_time(59.0, reads(0.0, 60)))
    assert sent(played.pass_time(60.0, reads(0.0, 60))) == [unknown]


def test_what_a_call_holds_above_its_charge_is_learned_as_it_grows():
    charge, tasks = of_unknown_functions(1)
    played = Played(1000 * MB)
    played.submit(*tasks)
    for second, megabytes in enumerate((20, 21, 24, 24, 100)):
        played.pass_time(second, reads(0.0, megabytes))
    assert charge.seen_running == [20 * MB, 24 * MB, 100 * MB]


def test_what_a_task_leaves_in_its_worker_is_not_what_the_next_task_takes():
    played, task = Played(1000 * MB), a_task()
    played.submit(task)
    played.returned(task, peak_bytes=110 * MB, peak_upper_bytes=130 * MB, kept_bytes=100 * MB)
    assert (task.charge.seen, task.charge.seen_upper) == ([10 * MB], [30 * MB])
    assert task.peak_bytes == 110 * MB


def test_what_a_killed_attempt_was_seen_to_take_is_learned_as_it_is():
    played, task = Played(1000 * MB), a_task()
    played.submit(task)
    played.reply(task, KILLED._replace(figures=Figures(peak_bytes=50 * MB)))
    assert task.charge.seen == [50 * MB]


def test_what_a_killed_attempt_was_seen_to_hold_is_the_least_that_it_took():
    played, task = Played(1000 * MB, retries=0), a_task()
    played.submit(task)
    played.pass_time(1.0, holds(300))
    played.pass_time(2.0, holds(100))
    played.reply(task, KILLED)
    assert (task.peak_bytes, task.peak_upper_bytes) == (300 * MB, None)


def test_after_a_loss_a_worker_is_started_before_a_task_needs_it():
    played, task = Played(retries=0), a_task()
    played.submit(task)
    effects = played.reply(task, KILLED)
    assert len(only(effects, Start)) == 1
    assert not sent(effects)


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


# Replacing workers ----------------------------------------------------------------------------------------------------


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
    assert not played.scheduler.pool.leaving, "it retained nothing that is to be waited for"


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


# What workers hold ----------------------------------------------------------------------------------------------------


def test_the_first_worker_says_what_the_initializer_loads_before_a_second_starts():
    played = Played(300 * MB, workers=4, has_initializer=True)
    tasks = [a_task(5 * MB) for _ in range(4)]
    (start, _) = played.submit(*tasks)
    played.scheduler.pool.ready(start.slot, 200 * MB)
    assert not played.decided()
    assert sent(played.returned(tasks[0])) == [tasks[1]]


def test_what_an_initializer_loads_is_charged_once_to_each_worker():
    played = Played(500 * MB, workers=4, has_initializer=True)
    tasks = [a_task(5 * MB) for _ in range(4)]
    (start, _) = played.submit(*tasks)
    played.scheduler.pool.ready(start.slot, 200 * MB)
    assert len(only(played.decided(), Start)) == 1
    assert len(played.running) == 2


@pytest.mark.parametrize(("base_mb", "loaded_mb", "retained_mb"), [(210, 200, 0), (210, 0, 200)])
def test_a_calibrated_base_and_what_is_loaded_of_it_count_once(base_mb, loaded_mb, retained_mb):
    played = Played(1000 * MB, base_bytes=base_mb * MB)
    task = a_task()
    (start, _) = played.submit(task)
    played.scheduler.pool.ready(start.slot, loaded_mb * MB)
    played.returned(task, kept_bytes=retained_mb * MB)
    assert played.scheduler.queue.placement.memory.retained.charged_bytes(start.slot) == 210 * MB


@pytest.mark.parametrize(("base_mb", "runs"), [(0, 2), (100, 1)])
def test_the_base_of_the_estimator_of_these_calls_is_charged_to_each_worker(base_mb, runs):
    estimator = MemoryEstimator(gamma=0, overhead="10 MB", base=base_mb * MB)
    played = Played(150 * MB)
    tasks = [Task(Submission(abs, (-3,), {}, Future()), FileCharge(1, estimator)) for _ in range(2)]
    assert len(sent(played.submit(*tasks))) == runs
    played.returned(tasks[0])
    assert len(played.running) == 1


@pytest.mark.parametrize("budget_mb", [1, 30])
def test_workers_larger_than_the_budget_run_one_task_at_a_time_and_that_is_said(budget_mb):
    played = Played(budget_mb * MB, workers=4, base_bytes=40 * MB)
    tasks = [a_task(0) for _ in range(8)]
    (start, _) = played.submit(*tasks)
    played.scheduler.pool.ready(start.slot, 0)
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
        played.scheduler.pool.ended(stop.slot)
    else:  # a thread that its task has left keeps it alive
        played.scheduler.time_passed(LEAVING_S, {})
    assert sent(played.decided()) == [second]


def with_two_idle_workers(*retained_mb):
    """Workers that are warm, and what they retain."""
    played, tasks = Played(200 * MB, workers=2), [a_task(10 * MB) for _ in retained_mb]
    played.submit(*tasks)
    slots = [played.slot_of(task) for task in tasks]
    for task, megabytes in zip(tasks, retained_mb, strict=True):
        played.returned(task, kept_bytes=megabytes * MB)
    return played, slots


def test_the_larger_of_two_idle_workers_is_stopped_where_the_next_task_needs_its_memory():
    played, (_, larger) = with_two_idle_workers(60, 90)
    task = a_task(120 * MB)
    assert played.submit(task) == [Stop(larger)]
    played.scheduler.pool.ended(larger)
    assert sent(played.decided()) == [task]


def test_idle_workers_are_stopped_where_another_program_waits_for_their_memory():
    played, slots = with_two_idle_workers(60, 90)
    played.scheduler.pool.stop_idle()
    assert {stop.slot for stop in only(played.decided(), Stop)} == set(slots)
    assert not played.scheduler.pool.slots


@pytest.mark.parametrize(("more_bytes", "counts"), [(2**20 - 1, False), (2**20, True)])
def test_less_than_a_mebibyte_more_is_no_change_of_what_a_worker_retains(more_bytes, counts):
    played, first, second = Played(1000 * MB, workers=1), a_task(), a_task()
    for task, retained_bytes in ((first, 100 * MB), (second, 100 * MB + more_bytes)):
        played.submit(task)
        slot = played.slot_of(task)
        played.returned(task, kept_bytes=retained_bytes)
    assert slot.retained_bytes == 100 * MB + (more_bytes if counts else 0)


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


@pytest.mark.parametrize(("base_mb", "is_replaced"), [(20, False), (40, True)])
def test_what_the_initializer_loads_counts_to_what_a_worker_may_hold(base_mb, is_replaced):
    played, task = Played(1000 * MB, workers=1, max_worker_bytes=100 * MB), a_task()
    played.submit(task)
    slot = played.slot_of(task)
    played.scheduler.pool.ready(slot, base_mb * MB)
    played.returned(task, peak_bytes=80 * MB, kept_bytes=70 * MB)
    assert slot.is_gone is is_replaced
