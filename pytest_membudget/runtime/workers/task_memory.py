"""What one call takes in its worker, by the kernel's high-water mark.

Resetting the mark and reading it costs some 50 µs, which is much for a call of 1 ms. `exact` pays that. Otherwise the
mark is reset only after a call has raised it: a call that did not raise it took no more than what was there to reach,
and that is kept below `RESOLUTION_BYTES`.

What a call starts, programs, pools of its own and what these start in turn, is part of what it takes.

A call that starts nothing pays two system calls (2 µs). Just before the first start the worker's own tree helper begins to
watch, as it does for `measure`; it stays from then on, and its start takes 50 ms. Starts are noticed by the at-fork hook
and by stand-ins for the three functions of Python that start programs. An audit hook would see them all, but costs 0.1 µs
at each of a program's `id()`, which doubles the time of a deep copy.

A library that starts processes without Python is noticed when the call ends, by the kernel's account of children. That
call's figure is an interval; later calls in this worker are watched from their start.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from pytest_membudget.measurement.probe import Probe
from pytest_membudget.measurement.process import children, high_water, proc
from pytest_membudget.measurement.process.heap import TaskHeap, trim_heap
from pytest_membudget.measurement.process.proc import proportional_bytes
from pytest_membudget.measurement.tree.sampler import helper_pid, is_starting

RESOLUTION_BYTES = 1024 * 1024
"""The kernel counts in batches and the interpreter takes memory by itself: less than this says nothing of a task."""


HELPER_TO_COME = -1
"""In place of the helper's process number while it is being started: it cannot be told from a task's process until then."""


class Taken(NamedTuple):
    """What one call took with what it started, in bytes.

    `peak_bytes` is proven, `peak_upper_bytes` possible; the latter is `None` where the first is exact.
    """

    peak_bytes: int | None  # the most it added; `None` where the kernel does not count it
    kept_bytes: int  # what the worker keeps since it was ready, and what is left running below it
    resident_peak_bytes: int  # the most that was resident in the worker, and at most in what it had started
    peak_upper_bytes: int | None = None


_QUICK_S = 0.005
_SHARE_OF_TIME = 0.1


class Collector:
    """Collects garbage in a tenth of the time at most, where that is slow: with pandas loaded it takes some 70 ms.

    Args:
        collect: the collection.
        clock: seconds that pass.
        processor_clock: seconds that this thread computes; those of others do not make a collection dear.
    """

    def __init__(
        self,
        collect: Callable[[], object] = gc.collect,
        clock: Callable[[], float] = time.monotonic,
        processor_clock: Callable[[], float] = time.thread_time,
    ) -> None:
        self._collect = collect
        self._clock = clock
        self._processor_clock = processor_clock
        self._not_before_s = float("-inf")

    def collect(self) -> None:
        """Collects, unless the last time was too dear for that."""
        if self._clock() < self._not_before_s:
            return
        began_s = self._processor_clock()
        self._collect()
        cost_s = self._processor_clock() - began_s
        if cost_s > _QUICK_S:
            self._not_before_s = self._clock() + cost_s / _SHARE_OF_TIME


_PROGRAM_STARTERS = (
    ("_posixsubprocess", "fork_exec"),
    ("subprocess", "_fork_exec"),  # the same function, by the name that subprocess has bound
    ("os", "posix_spawn"),
    ("os", "posix_spawnp"),
    ("os", "system"),
)
"""Functions that start a program, found by name where they are called. Python 3.11 to 3.15 have them."""


_LONGEST_OPENING_S = 10.0


class TreeTaken(NamedTuple):
    """What a call took with all that it started, in bytes above its start."""

    peak_bytes: int
    peak_upper_bytes: int
    left_bytes: int = 0  # held at its end by what it has left running


class TaskTree:
    """Notices what this process starts, and measures it.

    Args:
        tell_helper: called with the process number of the helper, once there is one: it is no part of any call.
    """

    def __init__(self, tell_helper: Callable[[int], None] = lambda _: None) -> None:
        self._tell_helper = tell_helper
        self._lock = threading.Lock()
        self._opener = 0  # the thread that opens a probe
        self._is_in_call = False
        self._always = False
        self._has_left = False  # whether something was running when the last call ended
        self._probe: Probe | None = None
        self._opened_bytes = 0  # resident when the probe began
        self._reaped: children.Reaped | None = None
        self._left_out: frozenset[int] = frozenset()
        self._left_out_bytes = 0
        self._grown_bytes = 0  # by the end of the last call

    def leave_out_others(self) -> int:
        """What runs below this process now, and that the initializer has started, is no call's; what it holds, in bytes."""
        self._left_out = frozenset(self._others())
        self._left_out_bytes = _proportional_bytes(self._left_out)
        return self._left_out_bytes

    def watch_starts(self) -> None:
        """Notices from now on whatever this process starts by Python's own functions."""
        os.register_at_fork(before=self._before_start, after_in_child=self._forget)
        for module, name in _PROGRAM_STARTERS:
            owner = sys.modules.get(module)
            if (function := getattr(owner, name, None)) is not None:
                setattr(owner, name, self._noticing(function))

    def begin(self) -> None:
        """Just before a call."""
        self._reaped = children.reaped()
        self._is_in_call = True
        if self._always or (self._has_left and self._others()):
            self._open()

    def end(self, own_peak_bytes: int, start_bytes: int) -> TreeTaken | None:
        """Just after a call; `None` where it started nothing, so that its own peak is all.

        Args:
            own_peak_bytes: what this process alone added at most.
            start_bytes: what was resident here when the call began.
        """
        self._is_in_call = False
        with self._lock:
            probe, self._probe = self._probe, None
        self._has_left = children.has_children()
        if probe is not None:
            measured = probe.finish()
            before_bytes = self._opened_bytes - start_bytes
            low_bytes = max(own_peak_bytes, before_bytes + measured.peak_bytes)
            high_bytes = max(low_bytes, before_bytes + measured.peak_upper_bytes)
            return TreeTaken(low_bytes, high_bytes, self._held_bytes() + self._left_out_grown_bytes())
        reaped = children.reaped()
        if reaped == self._reaped and not self._has_left:
            return None
        return self._unwatched(reaped, own_peak_bytes)

    def _unwatched(self, reaped: children.Reaped, own_peak_bytes: int) -> TreeTaken | None:
        """Something was started that nothing has announced: what the kernel counts of it bounds it."""
        others = self._others()
        self._tell_helper(helper_pid())  # the call may have started it, with a measurement of its own
        faults = 0 if self._reaped is None else reaped.faults - self._reaped.faults
        seen_bytes, grown_bytes = self._grown_bytes, self._left_out_grown_bytes()
        news_bytes = max(0, grown_bytes - seen_bytes)
        if not faults and not others:
            return (
                TreeTaken(own_peak_bytes, own_peak_bytes + news_bytes, grown_bytes) if grown_bytes else None
            )
        self._always = True
        held_bytes = self._held_bytes()
        # All that they can have filled, one after the other or together.
        ended_bytes = faults * proc.PAGE_BYTES
        low_bytes = max(own_peak_bytes, held_bytes)
        high_bytes = own_peak_bytes + ended_bytes + 2 * held_bytes + news_bytes
        return TreeTaken(low_bytes, high_bytes, held_bytes + grown_bytes)

    def _before_start(self) -> None:
        if not self._is_in_call or self._probe is not None or self._opener == threading.get_ident():
            return
        # A measurement of the call's own may be starting the helper. Where another thread opens the probe it is waited for: what
        # starts before that is done would be taken for what had been there.
        if self._opener or not is_starting():
            self._open()

    def _open(self) -> None:
        if not self._lock.acquire(timeout=_LONGEST_OPENING_S):
            return
        try:
            self._opener = threading.get_ident()
            if self._probe is None:
                if not helper_pid():
                    self._tell_helper(HELPER_TO_COME)
                probe = Probe("task")
                self._opened_bytes = high_water.resident_bytes()
                probe.begin()
                self._probe = probe
        finally:
            self._tell_helper(helper_pid())
            self._opener = 0
            self._lock.release()

    def _others(self) -> list[int]:
        """What lives or has ended below this process, the helper left out, which is its child by adoption."""
        left_out = {helper_pid(), *self._left_out}
        return [pid for pid in children.descendants() if pid not in left_out]

    def _held_bytes(self) -> int:
        return _proportional_bytes(self._others())

    def _left_out_grown_bytes(self) -> int:
        """What the initializer had started has grown by since then: its worker's to keep, by whatever call that was."""
        self._grown_bytes = max(0, _proportional_bytes(self._left_out) - self._left_out_bytes)
        return self._grown_bytes

    def _forget(self) -> None:
        """In a forked child: it is part of the call, and measures nothing."""
        self._is_in_call = False
        self._lock = threading.Lock()
        self._opener = 0
        self._probe = None

    def _noticing(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def start(*args: Any, **kwargs: Any) -> Any:
            with contextlib.suppress(Exception):  # what keeps us from measuring is no business of the call's
                self._before_start()
            return function(*args, **kwargs)

        return start


def _proportional_bytes(pids: Iterable[int]) -> int:
    return sum(proportional_bytes(pid) or 0 for pid in pids)


class TaskMemory:
    """Follows this process's memory from call to call, and with a `tree` that of what calls start."""

    def __init__(self, tree: TaskTree | None = None) -> None:
        self._tree = tree
        # What imports have left behind is given back now: else the first call would seem to have kept less.
        gc.collect()
        trim_heap()
        self.ready_bytes = high_water.resident_bytes()
        self._mark = high_water.open_mark()
        self._start_bytes = self.ready_bytes
        self._tidied_bytes = 0
        self._collector = Collector()

    def begin(self, *, exact: bool) -> None:
        """Just before a call."""
        if exact:
            self._reset()
        if self._tree is not None:
            self._tree.begin()

    def end(self) -> Taken:
        """Just after a call. A peak of `None`: the kernel does not count it."""
        reached_bytes, resident_bytes = high_water.high_water_and_resident_bytes()
        peak_bytes = None
        if self._mark is not None:
            reached_bytes = max(reached_bytes, self._mark.peak_bytes)
            peak_bytes = max(0, reached_bytes - self._start_bytes)
        start_bytes = self._start_bytes
        tree = None if self._tree is None else self._tree.end(peak_bytes or 0, start_bytes)
        if resident_bytes - self.ready_bytes > self._tidied_bytes + RESOLUTION_BYTES:
            # Given back now: what lies about would be charged to this worker, and hide what the next call takes.
            self._collector.collect()
            trim_heap()
            resident_bytes = high_water.resident_bytes()
            self._tidied_bytes = resident_bytes - self.ready_bytes
        self._start_bytes = resident_bytes
        if reached_bytes - resident_bytes > RESOLUTION_BYTES:
            self._reset()
        kept_bytes = max(0, resident_bytes - self.ready_bytes)
        if tree is None:
            return Taken(peak_bytes, kept_bytes, reached_bytes)
        is_exact = tree.peak_bytes == tree.peak_upper_bytes
        upper_bytes = None if is_exact else tree.peak_upper_bytes
        reached_bytes = max(reached_bytes, start_bytes + tree.peak_upper_bytes)
        return Taken(tree.peak_bytes, kept_bytes + tree.left_bytes, reached_bytes, upper_bytes)

    def _reset(self) -> None:
        if self._mark is not None:
            high_water.close_mark(self._mark)
            self._mark = high_water.open_mark()
        self._start_bytes = high_water.resident_bytes() if self._mark is None else self._mark.start_bytes


_FARTHEST_TASKS = 8
_EARLY_TASKS = 64
_EARLY_COST_S = 0.002
_READING_SHARE_OF_TIME = 0.01


class HeapReader:
    """Reads in the worker, where it is due and has not taken too much of the time already."""

    def __init__(self) -> None:
        self._heap = TaskHeap()
        self._tasks = 0
        self._next_tasks = 0
        self._not_before_s = 0.0

    def before_task(self, packed_bytes: int) -> tuple[int, int] | None:
        """Counts a task; the reading before it, less the `packed_bytes` that the waiting call takes."""
        tasks = self._tasks
        self._tasks += 1
        if tasks < self._next_tasks or time.monotonic() < self._not_before_s:
            return None
        began_s = time.thread_time()
        gc.collect()
        held_bytes = self._heap.read() - packed_bytes
        cost_s = time.thread_time() - began_s
        self._next_tasks = tasks + max(1, min(tasks // 8, _FARTHEST_TASKS))
        if tasks >= _EARLY_TASKS or cost_s > _EARLY_COST_S:
            self._not_before_s = time.monotonic() + cost_s / _READING_SHARE_OF_TIME
        return tasks, held_bytes  # a plain tuple: it travels with the task's report
