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
    "this process's memory could not be read (is /proc hidden, or is every descriptor in use?): the lower figure is what "
    "is proven all the same, the upper one comes from the highest that it ever had; children are in neither"
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


def own_without_end(start_bytes: int, peak_bytes: int, life_mark_bytes: int) -> Own:
    """Where nothing could be read at the end any more: what is known until then, and the mark of the whole life."""
    return Own(start_bytes, peak_bytes, start_bytes, max(peak_bytes, life_mark_bytes), readable=False)


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
    by_marks_bytes: int = 0  # what the marks of living children prove of `peak_low`
    floor_bytes: int = 0  # what this process held throughout and no child of it can have shared
    hidden_bytes: int = 0  # what a fork that nobody saw may have had beside what this process had
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
        by_marks_bytes=summary["by_marks"],
        floor_bytes=summary["floor"],
        hidden_bytes=summary["hidden"],
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
    child_mark_bytes: int = 0,
    value: Any = None,
) -> Measurement:
    """The measurement: this process's own mark is exact, the tree's figures bound what it shared its time with.

    `child_mark_bytes` is the largest high-water mark of a process that was started and waited for in the block, 0 where that
    is not known.
    """
    said = [*caveats, *own.caveats]
    common = {"label": label, "duration_s": duration_s, "value": value}
    own_low = max(0, own.peak_bytes - own.start_bytes)
    own_high = own_low if own.high_bytes is None else max(own_low, own.high_bytes - own.start_bytes)
    marked = _proven_by_child(own, tree, child_mark_bytes)
    if tree is None:
        low = max(own_low, marked)
        return Measurement(
            peak_bytes=low,
            peak_upper_bytes=max(low, own_high),
            total_peak_bytes=max(own.peak_bytes, own.start_bytes + low),
            start_bytes=own.start_bytes,
            end_bytes=own.end_bytes,
            processes=1 + bool(child_mark_bytes),
            source="kernel" if own.exact or low > own_low else "sampled",
            caveats=tuple(said),
            **common,
        )
    among = tree.others_floor is not None
    if among:
        others_above_start = (tree.others_floor or 0) - tree.start_bytes
        own_low = max(0, own.peak_bytes + others_above_start)
        own_high = max(own_low, (own.high_bytes or own.peak_bytes) + others_above_start)
    low = max(own_low, tree.peak_low, marked)
    high = max(low, tree.peak_high, own_high)
    start_bytes = tree.start_bytes if among else own.start_bytes
    if tree.missed_bytes:
        said.append(
            "a process ended before it could be read: its memory, "
            f"at most {format_size(tree.missed_bytes)}, is in the upper figure only"
        )
    said.extend(tree.caveats)
    of_kernel = (own.exact and low == high == own_low) or low in {marked, tree.by_marks_bytes} - {0}
    return Measurement(
        peak_bytes=low,
        peak_upper_bytes=high,
        total_peak_bytes=max(own.peak_bytes, tree.total_low, start_bytes + low),
        start_bytes=start_bytes,
        end_bytes=tree.end_bytes if tree.living > 1 else own.end_bytes,
        processes=len({*tree.seen, pid}) + bool(tree.missed_bytes),
        source="kernel" if of_kernel else "sampled",
        interval_s=None if of_kernel else tree.interval_s,
        shares=_shares(own, tree, pid),
        timeline=tuple(TimelinePoint(at_s, size) for at_s, size in tree.timeline),
        caveats=tuple(said),
        **common,
    )


def _proven_by_child(own: Own, tree: Tree | None, mark_bytes: int) -> int:
    """What the largest mark of the block's dead children proves, above the start.

    Somebody held so much at one instant of the block, unless that was this process itself: a child of vfork has its mark. A
    program shares nothing with what this process held throughout. A fork does: where one may have had the mark, the mark
    is all that is proven. One that nobody saw had no more than this process had and what was faulted in out of sight.
    """
    most_bytes = max(own.peak_bytes, own.high_bytes or 0)
    if not own.readable or mark_bytes <= most_bytes:
        return 0
    floor_bytes = 0 if tree is None or mark_bytes <= most_bytes + tree.hidden_bytes else tree.floor_bytes
    return max(0, mark_bytes + floor_bytes - own.start_bytes)


def _shares(own: Own, tree: Tree, pid: int) -> tuple[ProcessShare, ...]:
    most = {**tree.seen, pid: max(own.peak_bytes, tree.seen.get(pid, 0))}
    ordered = sorted(most.items(), key=lambda item: -item[1])
    return tuple(ProcessShare(each, tree.names.get(each, ""), size) for each, size in ordered[:MOST_SHARES])
