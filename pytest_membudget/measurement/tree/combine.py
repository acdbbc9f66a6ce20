"""One measurement from what this process knows of itself and what was seen of its tree. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from pytest_membudget.measurement.tree.helper.messages import Summary
from pytest_membudget.records.measurement import Caveat, Measurement, ProcessShare, TimelinePoint

MOST_SHARES = 16


class Own(NamedTuple):
    """What this process alone held, in bytes: at the start, at most, and at the end.

    `high_bytes` is what it cannot have exceeded, `None` where the kernel's mark gave `peak_bytes` exactly. Where
    `readable` is False, its memory could not be read, and `start_bytes` or `end_bytes` is only the best that is known.
    """

    start_bytes: int
    peak_bytes: int
    end_bytes: int
    high_bytes: int | None = None
    readable: bool = True

    @property
    def exact(self) -> bool:
        """Whether `peak_bytes` is the kernel's own figure."""
        return self.high_bytes is None and self.readable

    @property
    def caveats(self) -> list[Caveat]:
        """What a reader of the figures must know."""
        if not self.readable:
            return [Caveat("memory-not-readable")]
        return [] if self.exact else [Caveat("mark-not-reset")]


def own_without_reset(start: tuple[int, int], end: tuple[int, int]) -> Own:
    """Where the mark cannot be reset: from two readings (resident, mark of the whole life), before and after the block.

    A mark that rose meanwhile was set by the block, and is its peak. One that did not says only what it cannot exceed.
    """
    (start_bytes, mark_before), (end_bytes, mark_after) = start, end
    if not start_bytes:
        return Own(mark_before, mark_after, mark_after, mark_before + mark_after, readable=False)
    if mark_after > mark_before:
        return Own(start_bytes, mark_after, end_bytes)
    # The mark can even have fallen: then other code has reset it, and the higher reading still bounds the block.
    return Own(start_bytes, max(start_bytes, end_bytes), end_bytes, max(mark_before, mark_after))


def own_without_end(start_bytes: int, peak_bytes: int, life_mark_bytes: int) -> Own:
    """Where nothing could be read at the end any more: what was known before, and the mark of the whole life."""
    return Own(start_bytes, peak_bytes, start_bytes, max(peak_bytes, life_mark_bytes), readable=False)


class Shared(NamedTuple):
    """What was added to shared memory and tmpfs in the block, as of its end, in bytes."""

    left_bytes: int = 0  # all of it
    unmapped_bytes: int = 0  # what this process does not map of it
    is_ours: bool = True  # whether nothing else runs here that may have added it
    held_bytes: int = 0  # what this process holds open of it and does not map
    swapped_bytes: int = 0  # by how much the machine's swap has filled, of any program's


NOTHING_SHARED = Shared()


class Unwatched(NamedTuple):
    """Children of a block without a helper, in bytes."""

    reaped_bytes: int = 0  # what those that ended held at most, by what they had faulted in
    limit_bytes: int | None = None  # the memory limit, where some live and nothing is known of them


ALL_WATCHED = Unwatched()


def combine(
    own: Own,
    tree: Summary | None,
    *,
    pid: int,
    label: str = "",
    duration_s: float = 0.0,
    caveats: Sequence[Caveat] = (),
    child_mark_bytes: int = 0,
    shared: Shared = NOTHING_SHARED,
    unwatched: Unwatched = ALL_WATCHED,
    value: Any = None,
) -> Measurement:
    """The measurement of one block: of each figure, the best of what several sources prove.

    The peak is at least what this process's own mark shows, what readings of the tree prove, and what the mark of a
    dead child proves. It is at most what the tree's upper figure, or this process's, allows.

    Args:
        own: this process alone.
        tree: what was seen of the tree; `None` where there was no other process, or no helper to see it.
        pid: this process's number, for the shares.
        label: the name of the measurement.
        duration_s: how long the block took.
        caveats: doubts that go before those found here.
        child_mark_bytes: the largest high-water mark of a process that was started and waited for in the block, 0 where
            none is known.
        shared: what was added to shared memory and tmpfs.
        unwatched: what is known of children where there was no helper.
        value: what the block returned.
    """
    marked = _proven_by_child(own, tree, child_mark_bytes)
    if tree is None:
        found = _alone(own, marked, duration_s, processes=1 + bool(child_mark_bytes))
    else:
        found = _among(own, tree, marked, duration_s, pid=pid)
    named = msgspec.structs.replace(
        found,
        label=label,
        value=value,
        caveat_records=(*caveats, *own.caveats, *found.caveat_records),
    )
    return _with_unwatched(_with_shared(named, tree, shared), unwatched)


def of_one_process(own: Own, label: str, duration_s: float, value: Any) -> Measurement:
    """What `combine` gives of a process that was alone throughout, from the kernel's own exact mark: nothing is to be combined."""
    low_bytes = max(0, own.peak_bytes - own.start_bytes)
    return Measurement(
        peak_bytes=low_bytes,
        peak_upper_bytes=low_bytes,
        total_peak_bytes=own.start_bytes + low_bytes,
        start_bytes=own.start_bytes,
        end_bytes=own.end_bytes,
        duration_s=duration_s,
        processes=1,
        source="kernel",
        label=label,
        value=value,
    )


def _own_interval(own: Own, others_bytes: int = 0) -> tuple[int, int]:
    """This process's peak above its start, at least and at most; `others_bytes` is what others held beside it all the while."""
    low = max(0, own.peak_bytes - own.start_bytes + others_bytes)
    most_bytes = own.peak_bytes if own.high_bytes is None else own.high_bytes
    return low, max(low, most_bytes - own.start_bytes + others_bytes)


def _alone(own: Own, marked: int, duration_s: float, *, processes: int) -> Measurement:
    """Where no other process was seen; `marked` is what a dead child's mark proves."""
    own_low, own_high = _own_interval(own)
    low = max(own_low, marked)
    return Measurement(
        peak_bytes=low,
        peak_upper_bytes=max(low, own_high),
        total_peak_bytes=max(own.peak_bytes, own.start_bytes + low),
        start_bytes=own.start_bytes,
        end_bytes=own.end_bytes,
        duration_s=duration_s,
        processes=processes,
        source="kernel" if own.exact or low > own_low else "sampled",
    )


def _among(own: Own, tree: Summary, marked: int, duration_s: float, *, pid: int) -> Measurement:
    """Of what the processes of the tree map: everything but shared memory that none of them maps."""
    start_bytes, others_bytes = own.start_bytes, 0
    if tree.others_floor_bytes is not None:
        # Others were there from the start: what they never fell below was there at this process's own highest moment.
        start_bytes = tree.start_bytes
        others_bytes = tree.others_floor_bytes + own.start_bytes - start_bytes
    own_low, own_high = _own_interval(own, others_bytes)
    low = max(own_low, tree.peak_low_bytes, marked)
    high = max(low, tree.peak_high_bytes, own_high)
    processes = len({*tree.sizes, pid}) + bool(tree.missed_bytes)
    # A reading of this process alone may be above its mark by what the kernel's counters had not yet summed up.
    exact = own.exact and low == high and (low == own_low or processes == 1)
    of_kernel = exact or low in {marked, tree.by_marks_bytes} - {0}
    return Measurement(
        peak_bytes=low,
        peak_upper_bytes=high,
        total_peak_bytes=max(own.peak_bytes, tree.total_low_bytes, start_bytes + low),
        start_bytes=start_bytes,
        end_bytes=tree.end_bytes if tree.members > 1 else own.end_bytes,
        duration_s=duration_s,
        processes=processes,
        source="kernel" if of_kernel else "sampled",
        interval_s=None if of_kernel else tree.interval_s,
        shares=_shares(own, tree, pid),
        timeline=_timeline(tree.timeline, low),
        caveat_records=(Caveat("process-missed", tree.missed_bytes),) if tree.missed_bytes else (),
    )


def _timeline(timeline: Sequence[tuple[float, int]], peak_bytes: int) -> tuple[TimelinePoint, ...]:
    """The samples, unless they missed more than half of the proven peak: a short block's curve would be another's."""
    if 2 * max((size for _, size in timeline), default=0) < peak_bytes:
        return ()
    return tuple(TimelinePoint(at_s, size) for at_s, size in timeline)


def _with_shared(found: Measurement, tree: Summary | None, shared: Shared) -> Measurement:
    """Adds shared memory that was not mapped: to both figures where it can only be the tree's, else to the upper one."""
    high_bytes = max(shared.unmapped_bytes, tree.shared_high_bytes if tree else 0)
    if not high_bytes and not shared.left_bytes and not shared.swapped_bytes:
        return found
    end_bytes = found.end_bytes + (shared.unmapped_bytes if shared.is_ours else shared.held_bytes)
    low = max(found.peak_bytes, end_bytes - found.start_bytes)
    caveats = found.caveat_records
    if shared.is_ours:
        low = max(low, tree.shared_total_low_bytes if tree else 0)
    elif high_bytes > shared.held_bytes:
        caveats = (*caveats, Caveat("shared-not-attributed", high_bytes - shared.held_bytes))
    if shared.swapped_bytes:
        caveats = (*caveats, Caveat("swapped", shared.swapped_bytes))
        high_bytes += shared.swapped_bytes
    exact = not high_bytes and found.exact
    return msgspec.structs.replace(
        found,
        peak_bytes=low,
        peak_upper_bytes=max(low, found.peak_upper_bytes + high_bytes),
        total_peak_bytes=max(found.total_peak_bytes, found.start_bytes + low),
        end_bytes=end_bytes,
        source=found.source if exact else "sampled",
        shared_left_bytes=shared.left_bytes,
        caveat_records=caveats,
    )


def _with_unwatched(found: Measurement, unwatched: Unwatched) -> Measurement:
    """Raises the upper figure by what children that were not seen may have held: such a peak is never exact."""
    if unwatched == ALL_WATCHED:
        return found
    high = found.peak_upper_bytes + unwatched.reaped_bytes
    caveat = Caveat("children-not-seen", unwatched.reaped_bytes)
    if unwatched.limit_bytes is not None:
        high, caveat = max(high, unwatched.limit_bytes), Caveat("children-not-readable")
    return msgspec.structs.replace(
        found,
        peak_upper_bytes=high,
        source="sampled",
        caveat_records=(*found.caveat_records, caveat),
    )


def _proven_by_child(own: Own, tree: Summary | None, mark_bytes: int) -> int:
    """What the largest high-water mark of the block's dead children proves of its peak, above the start.

    A child held that much at some instant of the block. It proves nothing where this process held as much itself: until
    it calls exec, a child of vfork has its parent's mark.

    A program (a child that called exec) shares no anonymous memory with this process, so what this process held
    throughout (`Summary.floor_bytes`) is proven beside the mark. A fork may share all of it: where the mark may be a fork's,
    the mark alone is proven. A fork that no scan saw cannot have had more than this process at its highest and what was
    faulted in out of sight (`Summary.hidden_bytes`); a mark above both is a program's.
    """
    most_bytes = max(own.peak_bytes, own.high_bytes or 0)
    if not own.readable or mark_bytes <= most_bytes:
        return 0
    floor_bytes = 0 if tree is None or mark_bytes <= most_bytes + tree.hidden_bytes else tree.floor_bytes
    return max(0, mark_bytes + floor_bytes - own.start_bytes)


def _shares(own: Own, tree: Summary, pid: int) -> tuple[ProcessShare, ...]:
    sizes, names = tree.sizes, dict(tree.names)
    most = {**sizes, pid: max(own.peak_bytes, sizes.get(pid, 0))}
    ordered = sorted(most.items(), key=lambda item: -item[1])
    return tuple(ProcessShare(each, names.get(each, ""), size) for each, size in ordered[:MOST_SHARES])
