"""How many workers fit side by side at the worst moment, when the largest tasks meet?"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Fit(NamedTuple):
    """The most workers that fit, what they take together, and what one more would; `None` where no task is left."""

    workers: int
    taken_bytes: int
    next_bytes: int | None


def fit_workers(
    largest_first: Iterable[int], allowed_bytes: float, *, shared_bytes: int = 0, worker_bytes: int = 0
) -> Fit:
    """As many workers as stay within `allowed_bytes`, with one of the tasks each.

    Args:
        largest_first: the bytes that each task adds, falling.
        allowed_bytes: what all may take.
        shared_bytes: what is held once however many there are: threads share one base.
        worker_bytes: what each worker holds besides its task: processes have a base each.
    """
    taken_bytes, workers = shared_bytes, 0
    for task_bytes in largest_first:
        more_bytes = taken_bytes + worker_bytes + task_bytes
        if more_bytes > allowed_bytes:
            return Fit(workers, taken_bytes, more_bytes)
        taken_bytes, workers = more_bytes, workers + 1
    return Fit(workers, taken_bytes, None)
