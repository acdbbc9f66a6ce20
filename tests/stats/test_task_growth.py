"""Growth from task to task, and which tests left memory behind."""

import random

import pytest

from pytest_membudget.records.report import TestRecord
from pytest_membudget.stats.task_growth import judge_task_series, pool_workers, rank_retained

MB = 1_000_000


def noisy(task, seed=3):
    return random.Random(seed * 1000 + task).randrange(200_000)


def test_a_worker_that_keeps_100_kb_of_each_task_leaks():
    growth = judge_task_series([(task, 30 * MB + 100_000 * task) for task in range(1, 51)], label="worker 7")
    assert (growth.verdict, growth.label, growth.calls) == ("leak", "worker 7", 49)
    assert growth.bytes_per_call == pytest.approx(100_000)


def test_a_leak_shows_among_tasks_that_keep_unequal_results():
    points = [(task, 30 * MB + 100_000 * task + noisy(task)) for task in range(1, 101)]
    assert judge_task_series(points).verdict == "leak"


def test_a_worker_that_warms_up_is_clean():
    points = [(task, 30 * MB + min(task, 8) * MB) for task in range(1, 101)]
    assert judge_task_series(points).verdict == "clean"


def test_growth_within_the_allowance_is_clean():
    points = [(task, 5000 * task) for task in range(1, 51)]
    assert judge_task_series(points, allowed_bytes_per_task=5000).verdict == "clean"


@pytest.mark.parametrize("tasks", [0, 1, 5, 15])
def test_few_tasks_are_inconclusive(tasks):
    growth = judge_task_series([(task, task * MB) for task in range(1, tasks + 1)])
    assert growth.verdict == "inconclusive"
    assert "a verdict takes 16" in growth.caveats[0]


def test_order_and_first_number_do_not_matter():
    points = [(task, 100_000 * task) for task in range(500, 560)]
    shuffled = random.Random(1).sample(points, len(points))
    assert judge_task_series(shuffled) == judge_task_series(points)
    assert judge_task_series(points).verdict == "leak"


def worker(tasks, bytes_per_task, until=10**9):
    return judge_task_series([(task, bytes_per_task * min(task, until)) for task in range(tasks + 1)])


def test_workers_that_leak_are_a_leak_together():
    pooled = pool_workers([worker(50, 100_000), worker(40, 120_000), worker(50, 110_000)], "parse")
    assert (pooled.verdict, pooled.label, pooled.calls) == ("leak", "parse", 140)
    assert pooled.bytes_per_call == pytest.approx(110_000)
    assert "40 to 50 tasks in each of 3 workers" in pooled.caveats[0]


def test_the_workers_that_came_farthest_decide():
    still_filling, full = worker(20, 100_000, until=20), worker(100, 100_000, until=20)
    assert still_filling.verdict == "leak"
    assert pool_workers([full, still_filling, still_filling]).verdict == "clean"


def test_workers_that_disagree_are_inconclusive():
    pooled = pool_workers([worker(50, 100_000), worker(50, 0)])
    assert pooled.verdict == "inconclusive"
    assert "1 leak, 1 clean" in pooled.caveats[0]


def test_workers_with_few_tasks_are_inconclusive():
    pooled = pool_workers([worker(5, 100_000), worker(4, 100_000)])
    assert pooled.verdict == "inconclusive"
    assert "a verdict takes 16 in one of them" in pooled.caveats[0]


def test_tests_are_ranked_by_what_they_left_behind():
    tests = [
        TestRecord(nodeid="a", outcome="passed", retained_bytes=1 * MB),
        TestRecord(nodeid="b", outcome="passed", retained_bytes=3 * MB),
        TestRecord(nodeid="c", outcome="passed", retained_bytes=-9 * MB),
        TestRecord(nodeid="d", outcome="passed"),
    ]
    ranked = rank_retained(tests)
    assert [(row.nodeid, row.retained_bytes, row.share) for row in ranked] == [
        ("b", 3 * MB, 0.75),
        ("a", MB, 0.25),
    ]
    assert [row.nodeid for row in rank_retained(tests, least_bytes=2 * MB)] == ["b"]
    assert len(rank_retained(tests, most=1)) == 1


def test_a_session_that_left_nothing_has_no_rows():
    assert rank_retained([TestRecord(nodeid="a", outcome="passed", retained_bytes=0)]) == ()
