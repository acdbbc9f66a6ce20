"""Growth from task to task: does a worker keep more after each, and which tests of a session left memory behind?"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from pytest_membudget.records.judgement import Growth, GrowthVerdict, RetainedByTest
from pytest_membudget.stats.growth import CONFIDENCE, Precision, Trend, trend
from pytest_membudget.units import format_count

if TYPE_CHECKING:
    from pytest_membudget.records.report import TestRecord

FEWEST_TASKS = 16
"""Below that a cache that fills up cannot be distinguished from a leak."""
RESOLUTION_BYTES_PER_TASK = 1024.0
"""Tasks differ: what a worker holds after one moves by more than after equal calls."""


def judge_task_series(
    points: Iterable[tuple[int, int]],
    *,
    allowed_bytes_per_task: int = 0,
    resolution_bytes_per_task: float = RESOLUTION_BYTES_PER_TASK,
    label: str = "",
) -> Growth:
    """The verdict over one worker's tasks: `points` are (tasks done by it so far, bytes held then), in any order.

    Give bytes of heap (`measurement.TaskHeap`) or unshared resident bytes. The growth is that of a task, and `calls`
    of the result are tasks. With several workers judge each by itself, and `pool_workers` afterwards: their sum also
    moves when one is replaced.
    """
    series = sorted(dict(points).items())
    tasks = series[-1][0] - series[0][0] if series else 0
    numbers = [number - series[0][0] + 1 for number, _ in series]
    found = trend(
        numbers,
        [held for _, held in series],
        allowed=allowed_bytes_per_task,
        precision=Precision(resolution_bytes_per_task),
    )
    low, high = found.bounds()
    return Growth(
        verdict=_verdict(found, tasks),
        bytes_per_call=found.slope,
        low_bytes_per_call=low,
        high_bytes_per_call=high,
        allowed_bytes_per_call=allowed_bytes_per_task,
        calls=tasks,
        duration_s=0.0,
        confidence=CONFIDENCE,
        label=label,
        caveats=_caveats(found, tasks),
    )


def pool_workers(workers: Sequence[Growth], label: str = "") -> Growth:
    """One verdict over several workers that ran the same kind of tasks; at least one.

    The workers that came farthest decide, those with half as many tasks as the busiest or more: the others may
    still be filling what these have filled. It is a leak where at least half of them leak and fewer are clean, clean
    where at least half are clean and none leaks. Slope and interval are the medians of theirs.
    """
    most = max(worker.calls for worker in workers)
    judged = [worker for worker in workers if 2 * worker.calls >= most]
    verdicts = Counter(worker.verdict for worker in judged)
    verdict: GrowthVerdict = "inconclusive"
    if 2 * verdicts["leak"] >= len(judged) and verdicts["leak"] > verdicts["clean"]:
        verdict = "leak"
    elif 2 * verdicts["clean"] >= len(judged) and not verdicts["leak"]:
        verdict = "clean"
    return Growth(
        verdict=verdict,
        bytes_per_call=statistics.median(worker.bytes_per_call for worker in judged),
        low_bytes_per_call=statistics.median(worker.low_bytes_per_call for worker in judged),
        high_bytes_per_call=statistics.median(worker.high_bytes_per_call for worker in judged),
        allowed_bytes_per_call=judged[0].allowed_bytes_per_call,
        calls=sum(worker.calls for worker in judged),
        duration_s=0.0,
        confidence=CONFIDENCE,
        label=label,
        caveats=_pooled_caveats(judged, verdict, verdicts),
    )


def rank_retained(
    tests: Sequence[TestRecord], *, most: int = 10, least_bytes: int = 0
) -> tuple[RetainedByTest, ...]:
    """The tests that left the most memory behind, the largest first; those with `least_bytes` or less are left out.

    `share` is relative to all that was left behind. A test that gave memory back does not lower it.
    """
    left = [
        (test.retained_bytes, test.nodeid)
        for test in tests
        if test.retained_bytes and test.retained_bytes > 0
    ]
    together_bytes = sum(retained_bytes for retained_bytes, _ in left)
    ordered = sorted(left, key=lambda entry: (-entry[0], entry[1]))
    return tuple(
        RetainedByTest(nodeid, retained_bytes, retained_bytes / together_bytes)
        for retained_bytes, nodeid in ordered[:most]
        if retained_bytes > least_bytes
    )


def _verdict(found: Trend, tasks: int) -> GrowthVerdict:
    if tasks < FEWEST_TASKS or found.direction == "unclear":
        return "inconclusive"
    return "leak" if found.direction == "growing" else "clean"


def _pooled_caveats(
    judged: Sequence[Growth], verdict: GrowthVerdict, verdicts: Counter[GrowthVerdict]
) -> tuple[str, ...]:
    if len(judged) == 1:
        return judged[0].caveats
    fewest, most = min(worker.calls for worker in judged), max(worker.calls for worker in judged)
    tasks = f"{most}" if fewest == most else f"{fewest} to {most}"
    if most < FEWEST_TASKS:
        return (
            f"{tasks} {'task' if most == 1 else 'tasks'} in each worker, and a verdict takes {FEWEST_TASKS} in one of them",
        )
    if verdict == "leak":
        where = f"{tasks} tasks in each of {len(judged)} workers"
        return (f"judged on {where}: a cache that takes more tasks to fill looks the same",)
    if verdict == "inconclusive":
        found = ", ".join(f"{count} {each}" for each, count in verdicts.most_common())
        return (f"{len(judged)} workers with {tasks} tasks each do not decide it: {found}",)
    return ()


def _caveats(found: Trend, tasks: int) -> tuple[str, ...]:
    if tasks < FEWEST_TASKS:
        return (f"{format_count(tasks, 'task')} in one worker, and a verdict takes {FEWEST_TASKS}",)
    if found.direction == "growing":
        return (f"judged on {tasks} tasks: a cache that takes more tasks to fill looks the same",)
    return ()
