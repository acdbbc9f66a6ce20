"""Measuring a block that runs here: `measuring`, `measure` and the `Probe` behind both.

1. `begin` gives freed memory back to the system (and, if asked, collects garbage first), opens this process's own
   high-water mark, and notifies the helper process that a block begins.
2. `finish` closes the mark and then gives freed memory back once more: what malloc keeps for itself is not what the
   block keeps. Where this process was alone throughout, its own mark is the whole answer. Otherwise the helper is asked
   what it saw of the process tree, and `combine` makes one measurement of both.

All sizes are bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import msgspec

from pytest_membudget.errors import MeasurementError
from pytest_membudget.measurement.process import children, heap, high_water, proc, reclaim
from pytest_membudget.measurement.system.control_group import group_statistics
from pytest_membudget.measurement.system.machine import memory_limit
from pytest_membudget.measurement.tree import combine, sampler
from pytest_membudget.measurement.tree.fallback_sampler import InsideSampler
from pytest_membudget.measurement.tree.helper.messages import Limits, Start, Summary
from pytest_membudget.measurement.tree.helper.shared_memory import (
    COUNTER_FLOOR_BYTES,
    SharedReader,
    SharedReading,
    held_open_bytes,
)
from pytest_membudget.measurement.tree.sampler import SamplerLostError, TreeSampler
from pytest_membudget.originals import contextlib, os, time
from pytest_membudget.records.measurement import Caveat, Measurement

T = TypeVar("T")

ASK_AFTER_S = 0.02
"""After a block that ran for longer than this the helper is asked for its timeline, which takes 0.1 ms."""


_shared = SharedReader(group_statistics())


class Probe:
    """One measurement: `begin()`, the block, `finish()`; then `measurement` holds what was found.

    Args:
        label: a name for the measurement.
        interval_s: seconds between two readings of the process tree; by default as often as is worth their cost.
        settle: collect garbage before the start, so that what ran before does not change the figure.
        series: that of which this is one block; see `reclaim.expect_frees`.
        limits: what the helper's watchdog keeps (see `watchdog`).
    """

    def __init__(
        self,
        label: str = "",
        *,
        interval_s: float | None = None,
        settle: bool = False,
        series: reclaim.Series = reclaim.SINGLE,
        limits: Limits | None = None,
    ) -> None:
        self.label = label
        self.interval_s = interval_s
        self.settle = settle
        self.series = series
        self.key: int | None = None
        self._limits = limits
        self._mark: high_water.Mark | None = None
        self._helper: TreeSampler | None = None
        self._inside: InsideSampler | None = None
        self._caveats: list[Caveat] = []
        self._kept = reclaim.Kept()
        #: this process had no children when the block began
        self._alone = False
        self._start_bytes = self._shared_bytes = self._life_mark_bytes = self._mapped_bytes = 0
        self._shared_start = SharedReading()
        self._start_s = 0.0
        self._reaped = children.Reaped()
        self._is_unwatched = False
        self._measurement: Measurement | None = None

    @property
    def measurement(self) -> Measurement:
        """What was found.

        Raises:
            MeasurementError: the block has not ended yet.
        """
        if self._measurement is None:
            raise MeasurementError("there is no measurement yet: it is made when the block ends")
        return self._measurement

    def begin(self) -> None:
        """Starts the measurement: what the process tree holds now is the start that the peak is counted from."""
        self._measurement = None
        self._caveats = []
        # A full collection is too expensive for every block; giving freed memory back takes microseconds.
        if self.settle:
            self._kept = reclaim.reclaim(self.series)
        else:
            in_series = not self.series.is_single
            if in_series:
                reclaim.collect_if_growing()
            reclaim.trim_if_worthwhile(self.series.little_bytes, in_series=in_series)
        self._alone = self._is_unwatched = False
        self._helper = helper = sampler.sampler()
        # Read now: the helper may just have been started, by a child that was waited for.
        self._reaped = children.reaped()
        if helper is None:
            self._open_unwatched()
        elif helper.members <= 1 and children.none_since(helper.reaped, self._reaped):
            self._open_alone(helper)
        else:
            self._open_tree(helper)
        self._start_s = time.perf_counter()

    def finish(self, value: Any = None) -> Measurement:
        """Ends the measurement; `value` is what the block returned."""
        duration_s = time.perf_counter() - self._start_s
        kept = self._kept.caveats()  # before garbage is collected here
        own = self._close()
        reaped = children.reaped() if self._alone or self._is_unwatched else None
        shared = _shared.read()
        added_bytes = 0 if shared == self._shared_start else shared.added_since(self._shared_start)
        helper = self._helper
        tree = self._ask(duration_s, reaped, may_be_quiet=not added_bytes)
        has_swapped = shared.swapped_bytes > self._shared_start.swapped_bytes
        doubtful = self._caveats or kept or self._is_unwatched or added_bytes or has_swapped
        if tree is None and own.exact and reaped == self._reaped and not doubtful:
            self._measurement = combine.of_one_process(own, self.label, duration_s, value)
            return self._measurement  # as of most tests
        if helper is not None and helper.hides_huge_pages and tree is not None and len(tree.seen) > 1:
            self._caveats.append(Caveat("huge-pages-hidden"))
        self._measurement = combine.combine(
            own,
            tree,
            pid=os.getpid(),
            label=self.label,
            duration_s=duration_s,
            caveats=[*self._caveats, *kept],
            child_mark_bytes=self._child_mark_bytes(reaped),
            shared=self._shared_memory(shared, duration_s, tree, helper.pid if helper else 0),
            unwatched=self._unwatched(tree),
            value=value,
        )
        return self._measurement

    def _open_unwatched(self) -> None:
        """Nothing outside of this process watches its children: a thread of its own does what it can."""
        self._caveats.append(Caveat("no-helper", detail=sampler.why_not()))
        self._is_unwatched = True
        self._inside = InsideSampler(self.interval_s)
        self._inside.start()
        self._open_mark()

    def _open_tree(self, helper: TreeSampler) -> None:
        """This process may have children: the helper reads the tree's start just before its mark is opened."""
        try:
            self.key = helper.begin(shared=_shared.read(), limits=self._limits, interval_s=self.interval_s)
            self._alone = helper.members == 1
        except SamplerLostError as error:
            self._lose(error)
        self._reaped = children.reaped()
        self._open_mark()

    def _open_alone(self, helper: TreeSampler) -> None:
        """This process has no children, so its own mark is the whole answer unless it starts one; the helper need not be asked."""
        self._alone = True
        self._open_mark()
        start = Start(
            self._start_bytes,
            self._shared_bytes,
            self._reaped.faults,
            children.own_faults() if self._mark is None else self._mark.faults,
            self._mapped_bytes,
            *self._shared_start,
        )
        try:
            self.key = helper.begin_alone(start, limits=self._limits, interval_s=self.interval_s)
        except SamplerLostError as error:
            self._lose(error)

    def _open_mark(self) -> None:
        self._mark = high_water.open_mark()
        if self._mark is not None:
            self._start_bytes, self._shared_bytes = self._mark.start_bytes, self._mark.shared_bytes
        else:
            self._start_bytes, self._shared_bytes = high_water.resident_and_shared_bytes()
            self._life_mark_bytes = high_water.high_water_bytes()
        self._mapped_bytes = high_water.mapped_shared_bytes(self._shared_bytes)
        self._shared_start = _shared.read()

    def _close(self) -> combine.Own:
        if self._mark is not None:
            peak_bytes = high_water.close_mark(self._mark)
            if self._mark.end_bytes:
                return combine.Own(self._start_bytes, peak_bytes, self._left_bytes(self._mark.end_bytes))
            return combine.own_without_end(self._start_bytes, peak_bytes, high_water.high_water_bytes())
        life_mark_bytes = high_water.high_water_bytes()
        return combine.own_without_reset(
            (self._start_bytes, self._life_mark_bytes),
            (self._left_bytes(high_water.resident_bytes()), life_mark_bytes),
        )

    def _left_bytes(self, end_bytes: int) -> int:
        """What is resident at the end, less garbage where that was collected at the start, and less freed memory."""
        if end_bytes - self._start_bytes < reclaim.WORTH_TRIMMING_BYTES:
            return end_bytes
        if self.settle:
            # Where less was added no budget for what is retained can be exceeded by it.
            reclaim.at_end.collect(self.series.share)
        if heap.trim_heap() and self.settle:
            kept_bytes = reclaim.trim_threads()
            if kept_bytes > reclaim.WORTH_SAYING_BYTES:
                self._caveats.append(Caveat("kept-by-threads", kept_bytes))
            pool = reclaim.read_pool()
            if pool is not None and pool.owner == "pyarrow":  # what polars keeps goes within a second
                self._caveats.append(Caveat("pool-at-end", pool.most_bytes, pool.owner))
        return high_water.resident_bytes()

    def _shared_memory(
        self, now: SharedReading, duration_s: float, tree: Summary | None, helper: int
    ) -> combine.Shared:
        """What was added to shared memory, tmpfs and swap; `helper` is the helper's process, which is no other program."""
        swapped_bytes = now.swapped_bytes - self._shared_start.swapped_bytes
        if swapped_bytes <= COUNTER_FLOOR_BYTES:
            swapped_bytes = 0
        added_bytes = now.added_since(self._shared_start)
        if added_bytes <= 0 and not (tree and tree.shared_high_bytes):
            return combine.Shared(swapped_bytes=swapped_bytes)
        _, shared_bytes = high_water.resident_and_shared_bytes()
        mapped_bytes = max(0, high_water.mapped_shared_bytes(shared_bytes) - self._mapped_bytes)
        unmapped_bytes = max(0, added_bytes - mapped_bytes)
        held_bytes = held_open_bytes(_shared.mounts, time.time() - duration_s) if unmapped_bytes else 0
        return combine.Shared(
            left_bytes=max(0, added_bytes),
            unmapped_bytes=unmapped_bytes,
            held_bytes=min(unmapped_bytes, max(0, held_bytes - mapped_bytes)),
            is_ours=not children.runs_with_others([helper, *(tree.sizes if tree else ())]),
            swapped_bytes=swapped_bytes,
        )

    def _unwatched(self, tree: Summary | None) -> combine.Unwatched:
        """What is known of children where no helper has watched them."""
        if not self._is_unwatched:
            return combine.ALL_WATCHED
        found = children.reaped()
        faults = found.faults - self._reaped.faults
        lives_unseen = tree is None and (children.has_children() or not children.are_waited_for())
        reaped_bytes = max(faults * proc.PAGE_BYTES, self._child_mark_bytes(found)) if faults else 0
        return combine.Unwatched(reaped_bytes, memory_limit().bytes if lives_unseen else None)

    def _ask(
        self, duration_s: float, reaped: children.Reaped | None, *, may_be_quiet: bool
    ) -> Summary | None:
        """What the helper (or the sampler that stands in for it) saw of the tree; `None` without other processes.

        `reaped` is the account of dead children after the block; `may_be_quiet` is whether nothing else was seen of it.
        """
        if self._inside is not None:
            inside, self._inside = self._inside, None
            seen = inside.stop()
            if seen is not None:
                self._caveats.append(Caveat("sampled-from-inside"))
            return seen
        if self._helper is None or self.key is None:
            return None
        helper, key, self.key = self._helper, self.key, None
        quiet = (
            may_be_quiet and reaped is not None and self._alone and children.none_since(self._reaped, reaped)
        )
        if quiet:
            helper.reaped = reaped
        try:
            if quiet and duration_s < ASK_AFTER_S and self._limits is None and self._mark is not None:
                helper.cancel(key)
                return None
            return helper.end(key)
        except SamplerLostError as error:
            self._lose(error)
            return None

    def _child_mark_bytes(self, reaped: children.Reaped | None) -> int:
        """The largest high-water mark of a process that was started and waited for in the block; 0 where none is known."""
        if reaped is None:
            return 0
        # That figure only grows. Where it has not, its process may have run before the block.
        return reaped.largest_bytes if reaped.largest_bytes > self._reaped.largest_bytes else 0

    def _lose(self, error: SamplerLostError) -> None:
        if self._helper is not None:
            self._caveats.append(sampler.report_loss(self._helper, error))
        self._helper, self.key, self._is_unwatched = None, None, True


@contextlib.contextmanager
def measuring(label: str = "", *, interval_s: float | None = None, settle: bool = False) -> Iterator[Probe]:
    """Measures the block: `probe.measurement` is there when it ends, also when it raised."""
    probe = Probe(label, interval_s=interval_s, settle=settle)
    probe.begin()
    try:
        yield probe
    finally:
        probe.finish()


def measure(fn: Callable[..., T], *args: Any, **kwargs: Any) -> Measurement[T]:
    """Runs `fn` here and measures it; its result is in `value`, its exception propagates."""
    with measuring(getattr(fn, "__qualname__", "")) as probe:
        value = fn(*args, **kwargs)
    return msgspec.structs.replace(probe.measurement, value=value)
