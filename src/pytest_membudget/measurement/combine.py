"""One measurement from what this process knows of itself and what was seen of its tree. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pytest_membudget.records.measurement import Measurement, ProcessShare, TimelinePoint
from pytest_membudget.units import format_size

MOST_SHARES = 16

WITHOUT_RESET = (
    "this process's high-water mark cannot be reset here: a peak below the highest that it ever had lies between the "
    "two figures; measure_isolated sees it"
)
WITHOUT_READING = (
    "this process's memory cannot be read here (is /proc hidden?): the lower figure is what it grew beyond the highest "
    "that it ever had, the upper one is that highest itself; children are in neither"
)


class Own(NamedTuple):
    """This process in bytes: at the start, at most and at the end.

    `high_bytes` is what it cannot have exceeded; `None` where the kernel's mark gave the most exactly. `readable` is
    whether `start_bytes` and `end_bytes` are readings.
    """

    start_bytes: int
    peak_bytes: int
    end_bytes: int
    high_bytes: int | None = None
    readable: bool = True

    @property
    def exact(self) -> bool:
        """Whether the most is the kernel's own figure."""
        return self.high_bytes is None and self.readable

    @property
    def caveats(self) -> list[str]:
        """What a reader of the figures must know."""
        if not self.readable:
            return [WITHOUT_READING]
        return [] if self.exact else [WITHOUT_RESET]


def own_without_reset(start: tuple[int, int], end: tuple[int, int]) -> Own:
    """From readings (resident, mark of the whole life) before and after: a mark that rose was set by the block."""
    (start_bytes, mark_before), (end_bytes, mark_after) = start, end
    if not start_bytes:
        return Own(mark_before, mark_after, mark_after, mark_before + mark_after, readable=False)
    if mark_after > mark_before:
        return Own(start_bytes, mark_after, end_bytes)
    # A mark that fell was reset by somebody else meanwhile.
    return Own(start_bytes, max(start_bytes, end_bytes), end_bytes, max(mark_before, mark_after))


class Tree(NamedTuple):
    """What was seen of the tree, in bytes. `peak_low` and `peak_high` are above the start."""

    peak_low: int
    peak_high: int
    total_low: int
    start_bytes: int
    end_bytes: int
    seen: Mapping[int, int]
    names: Mapping[int, str]
    timeline: Sequence[tuple[float, int]] = ()
    others_floor: int | None = None  # what processes that were there at the start never fell below
    missed_bytes: int = 0
    interval_s: float | None = None
    living: int = 1
    caveats: tuple[str, ...] = ()


def tree_of(summary: Mapping[str, Any]) -> Tree:
    """The helper's answer as a record."""
    return Tree(
        peak_low=summary["peak_low"],
        peak_high=summary["peak_high"],
        total_low=summary["total_low"],
        start_bytes=summary["start"],
        end_bytes=summary["end"],
        seen=dict(summary["seen"]),
        names={int(pid): name for pid, name in summary["names"].items()},
        timeline=summary["timeline"],
        others_floor=summary["others_floor"],
        missed_bytes=summary["missed"],
        interval_s=summary["interval_s"],
        living=summary["members"],
    )


def combine(
    own: Own,
    tree: Tree | None,
    *,
    pid: int,
    label: str = "",
    duration_s: float = 0.0,
    caveats: Sequence[str] = (),
    value: Any = None,
) -> Measurement:
    """The measurement: this process's own mark is exact, the tree's figures bound what it shared its time with."""
    said = [*caveats, *own.caveats]
    common = {"label": label, "duration_s": duration_s, "value": value}
    own_low = max(0, own.peak_bytes - own.start_bytes)
    own_high = own_low if own.high_bytes is None else max(own_low, own.high_bytes - own.start_bytes)
    if tree is None:
        return Measurement(
            peak_bytes=own_low,
            peak_upper_bytes=own_high,
            total_peak_bytes=own.peak_bytes,
            start_bytes=own.start_bytes,
            end_bytes=own.end_bytes,
            processes=1,
            source="kernel" if own.exact else "sampled",
            caveats=tuple(said),
            **common,
        )
    among = tree.others_floor is not None
    if among:
        own_low = own_high = max(0, own.peak_bytes + (tree.others_floor or 0) - tree.start_bytes)
    low = max(own_low, tree.peak_low)
    high = max(low, tree.peak_high, own_high)
    start_bytes = tree.start_bytes if among else own.start_bytes
    if tree.missed_bytes:
        said.append(
            "a process ended before it could be read: its memory, "
            f"at most {format_size(tree.missed_bytes)}, is in the upper figure only"
        )
    said.extend(tree.caveats)
    exact = own.exact and low == high == own_low
    return Measurement(
        peak_bytes=low,
        peak_upper_bytes=high,
        total_peak_bytes=max(own.peak_bytes, tree.total_low, start_bytes + low),
        start_bytes=start_bytes,
        end_bytes=tree.end_bytes if tree.living > 1 else own.end_bytes,
        processes=len({*tree.seen, pid}) + bool(tree.missed_bytes),
        source="kernel" if exact else "sampled",
        interval_s=None if exact else tree.interval_s,
        shares=_shares(own, tree, pid),
        timeline=tuple(TimelinePoint(at_s, size) for at_s, size in tree.timeline),
        caveats=tuple(said),
        **common,
    )


def _shares(own: Own, tree: Tree, pid: int) -> tuple[ProcessShare, ...]:
    most = {**tree.seen, pid: max(own.peak_bytes, tree.seen.get(pid, 0))}
    ordered = sorted(most.items(), key=lambda item: -item[1])
    return tuple(ProcessShare(each, tree.names.get(each, ""), size) for each, size in ordered[:MOST_SHARES])
