"""In which order a list of files is run where the order is free."""

from __future__ import annotations

from collections.abc import Callable, Sequence


def best_order(
    durations_s: Sequence[float], sizes_bytes: Sequence[int], *, workers: int, budget_bytes: int
) -> list[int]:
    """Indices by `duration × max(1/P, m/B)` descending: what takes most of the machine for longest goes first.

    `1/P` is the share of the workers that a task occupies and `m/B` that of the budget; the larger is what it costs.
    Ties keep their order.
    """
    share: Callable[[int], float] = lambda size: max(1 / workers, size / max(1, budget_bytes))  # noqa: E731 - one line of formula
    weights = [duration * share(size) for duration, size in zip(durations_s, sizes_bytes, strict=True)]
    return sorted(range(len(weights)), key=lambda index: -weights[index])
