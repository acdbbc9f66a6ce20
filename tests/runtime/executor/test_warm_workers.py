"""Workers that keep what they have loaded: neither ended for nothing nor started where no room is for what they will keep."""

from types import SimpleNamespace

import executor_jobs as jobs
import pytest

from pytest_membudget import ExecutorPolicy, FallbackExecutor, MemoryEstimator
from pytest_membudget.records.measurement import MemoryLimit, MemoryReading
from pytest_membudget.runtime.executor.admission import Admission, Budget
from pytest_membudget.runtime.executor.learning import FileCharge
from pytest_membudget.runtime.executor.lessons import Lessons
from pytest_membudget.runtime.executor.levels import Levels
from pytest_membudget.runtime.executor.replies import learn
from pytest_membudget.runtime.executor.task import Task
from pytest_membudget.runtime.workers.pool import Crew
from pytest_membudget.runtime.workers.protocol import Figures
from pytest_membudget.runtime.workers.retained_memory import WARM_BYTES, Kept, Warmth
from pytest_membudget.runtime.workers.slot import Post

MB = 1_000_000


def test_warm_workers_are_not_ended_again_and_again_for_a_tight_budget(tmp_path):
    paths = [tmp_path / f"{number}.csv" for number in range(40)]
    for path in paths:
        path.write_text("a,b\n")
    with FallbackExecutor(4, budget="250 MB") as executor:
        batch = executor.run(jobs.load_once, paths)
    assert (
        len(set(batch.values)) <= 12
    )  # four, and one for each that is started before any has ended its first task


def test_what_a_task_leaves_in_its_worker_is_not_what_the_next_task_takes():
    estimator = MemoryEstimator(gamma=0, overhead="1 MB")
    task = Task(print, (), {}, FileCharge(10, estimator))
    assert learn(task, "process", Figures(peak_bytes=110 * MB), left_bytes=100 * MB) == 10 * MB
    assert task.peak_bytes == 110 * MB
    assert estimator.estimate_file_memory(10) == 10 * MB


def test_a_new_worker_is_expected_to_keep_what_the_latest_keep():
    warmth = Warmth()
    workers = [Kept() for _ in range(3)]
    for kept, first, latest in zip(workers, (10, 50, 60), (100, 120, 900), strict=True):
        warmth.note(kept, first * MB)
        warmth.note(kept, latest * MB)
    assert (warmth.fresh_bytes, warmth.expected_bytes) == (50 * MB, 120 * MB)
    assert warmth.charged_bytes(120 * MB) == 120 * MB - WARM_BYTES
    assert not warmth.shrinks(60 * MB)
    assert warmth.shrinks(900 * MB)


def test_a_calibrated_base_stays_what_it_is():
    warmth = Warmth(base_bytes=80 * MB)
    warmth.note(Kept(), 200 * MB)
    assert warmth.expected_bytes == warmth.fresh_bytes == 80 * MB
    assert warmth.charged_bytes(80 * MB) == 80 * MB


class Processes:
    level = "process"
    own_memory = True


def crew_of(*kept_mb, base_bytes=0, max_tasks=50):
    """Idle workers, that have begun where they keep anything."""
    launcher = Processes()
    crew = Crew(Levels([launcher], lambda _: None, lambda: 0.0), max_tasks, base_bytes)
    for each in kept_mb:
        post = Post(SimpleNamespace(pid=1), launcher)
        if each:
            post.handed = 1.0
            crew.warmth.note(post.kept, each * MB)
        crew.posts.append(post)
    return crew


def test_one_warm_worker_stays_where_room_is_made():
    assert [post.kept_bytes for post in crew_of(100, 120, 110).surplus()] == [120 * MB, 110 * MB]
    assert crew_of(100).surplus() == []


def test_a_worker_that_has_grown_is_no_loss():
    crew = crew_of(100)
    crew.warmth.note(crew.posts[0].kept, 400 * MB)
    assert crew.surplus() == crew.posts


def test_a_spare_that_has_loaded_nothing_costs_nothing_yet():
    crew = crew_of(100, 0)
    assert crew.surplus() == []
    assert crew.aside_bytes() == 100 * MB - WARM_BYTES


def test_a_worker_is_charged_what_it_will_keep_when_it_begins():
    assert crew_of(100).start_bytes() == 0
    crew = crew_of(100)
    crew.posts[0].in_flight.append("a task")
    assert crew.start_bytes() == 100 * MB - WARM_BYTES
    begun = Post(SimpleNamespace(pid=2), crew.launcher)
    begun.handed = 1.0
    crew.posts.append(begun)
    assert crew.aside_bytes() == 2 * (100 * MB - WARM_BYTES)


def test_a_calibrated_base_is_charged_from_the_start():
    crew = crew_of(0, base_bytes=80 * MB)
    assert (crew.aside_bytes(), crew.start_bytes()) == (80 * MB, 0)
    crew = crew_of(base_bytes=80 * MB)
    assert (crew.aside_bytes(), crew.start_bytes()) == (0, 80 * MB)


@pytest.mark.parametrize(
    ("exceeding", "due"),
    [
        (range(0), [8, 16, 32, 64]),
        (range(1, 65), [1, 9, 17, 25, 33, 41, 49, 57]),
        (range(3, 4), [3, 8, 16, 32, 64]),
    ],
)
def test_those_who_wait_are_charged_anew_now_and_then(exceeding, due):
    lessons = Lessons()
    seen = [number for number in range(1, 65) if lessons.are_due(exceeded=number in exceeding)]
    assert seen == due


def waiting_line(budget_bytes=1000 * MB):
    limit = MemoryReading(limit=MemoryLimit(budget_bytes, "a test"), available_bytes=budget_bytes)
    policy = ExecutorPolicy()
    return Admission(Budget(budget_bytes, policy, lambda: limit, clock=lambda: 0.0), policy)


def test_those_who_wait_profit_from_what_was_learned_meanwhile():
    admission, estimator = waiting_line(), MemoryEstimator(gamma=0, overhead="50 MB")
    tasks = [Task(print, (number,), {}, FileCharge(10, estimator)) for number in range(30)]
    for task in tasks:
        admission.line_up(task)
    first = admission.next(0, lambda: 0)
    estimator.observe(10, 400 * MB)
    admission.note_learned(first, 400 * MB)
    started = [admission.next(0, lambda: 0) for _ in range(3)]
    assert started == [*tasks[1:3], None]  # of 1,000 MB the first has 50, and two more may have 400
    assert [task.args[0] for task in admission.tasks()] == list(range(3, 30))


def test_a_repeat_keeps_its_raised_charge():
    admission, estimator = waiting_line(), MemoryEstimator(gamma=0, overhead="50 MB")
    again, new = (Task(print, (), {}, FileCharge(10, estimator)) for _ in range(2))
    again.begin()
    again.charged_bytes = 300 * MB
    for task in (again, new):
        admission.line_up(task)
    estimator.observe(10, 70 * MB)
    admission.note_learned(new, 70 * MB)
    assert (again.charged_bytes, new.charged_bytes) == (300 * MB, 70 * MB)


def test_a_task_that_does_not_fit_for_the_moment_waits_and_does_not_run_alone():
    admission = waiting_line()
    small, large = (
        Task(print, (), {}, FileCharge(1, MemoryEstimator(gamma=0, overhead=size)))
        for size in ("50 MB", "900 MB")
    )
    admission.line_up(small)
    assert admission.next(800 * MB, lambda: 0) is small
    admission.line_up(large)
    assert not large.ticket.exclusive
    assert admission.next(800 * MB, lambda: 0) is None
    assert admission.lacking_bytes() == 750 * MB


@pytest.mark.parametrize(
    ("max_tasks", "kept_mb", "busy_s", "is_last"),
    [
        (50, 100, 2.5, False),  # two seconds of importing for half a second of work
        (50, 100, 30.0, True),
        (50, 1, 2.5, True),  # it has loaded nothing: its first task was a long one
        (49, 100, 2.5, True),  # the caller's own number is kept to
    ],
)
def test_a_worker_that_took_long_to_load_is_not_replaced_before_that_has_paid(
    max_tasks, kept_mb, busy_s, is_last
):
    crew = crew_of(max_tasks=max_tasks)
    post = Post(SimpleNamespace(pid=1), crew.launcher)
    crew.warmth.note(post.kept, kept_mb * MB)
    for duration_s in (2.0, *[(busy_s - 2.0) / 48] * 48):
        post.note_duration(duration_s)
    post.handed = 49.0
    crew.take_on(post, SimpleNamespace(fresh_worker=False, exact=True), weight=1.0)
    assert post.is_last is is_last
    assert crew.nears_its_end(post) is is_last


@pytest.mark.parametrize(
    ("max_tasks", "exact", "counted"), [(50, True, 0.1), (50, False, 0.1), (49, True, 1.0), (49, False, 0.1)]
)
def test_short_inputs_count_by_their_time_unless_the_caller_chose_a_number_of_inputs(
    max_tasks, exact, counted
):
    crew = crew_of(max_tasks=max_tasks)
    post = Post(SimpleNamespace(pid=1), crew.launcher)
    crew.take_on(post, SimpleNamespace(fresh_worker=False, exact=exact), weight=0.1)
    assert post.handed == counted
