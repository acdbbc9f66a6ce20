"""What a call starts: programs, pools of its own, and what these start in turn. They are part of what the call takes.

A call that starts nothing pays two system calls (2 µs). Just before the first start the worker's own tree helper begins to
watch, as it does for `measure`; it is there from then on, and takes 50 ms once. Starts are noticed by the at-fork hook
and by stand-ins for the three functions of Python that start programs. An audit hook would see them all, but costs 0.1 µs
at each of a program's `id()`, which doubles the time of a deep copy.

A library that starts processes without Python is noticed when the call ends, by the kernel's account of children. That
call's figure is an interval; later calls in this worker are watched from their start.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from pytest_membudget.measurement.probe import Probe
from pytest_membudget.measurement.process import children, high_water
from pytest_membudget.measurement.process.pss import proportional_bytes
from pytest_membudget.measurement.tree.sampler import helper_pid, is_starting

_PROGRAM_STARTERS = (
    ("_posixsubprocess", "fork_exec"),
    ("subprocess", "_fork_exec"),  # the same function, by the name that subprocess has bound
    ("os", "posix_spawn"),
    ("os", "posix_spawnp"),
    ("os", "system"),
)
"""Functions that start a program, looked up where they are called. Python 3.11 to 3.15 have them."""


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
        self._is_in_call = False
        self._always = False
        self._has_left = False  # whether something was running when the last call ended
        self._probe: Probe | None = None
        self._opened_bytes = 0  # resident when the probe began
        self._reaped: children.Reaped | None = None

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
            return TreeTaken(low_bytes, high_bytes, self._held_bytes())
        reaped = children.reaped()
        if reaped == self._reaped and not self._has_left:
            return None
        return self._unwatched(reaped, own_peak_bytes)

    def _unwatched(self, reaped: children.Reaped, own_peak_bytes: int) -> TreeTaken | None:
        """Something was started that nothing has told of: what the kernel counts of it bounds it."""
        others = self._others()
        self._tell_helper(helper_pid())  # the call may have started it, with a measurement of its own
        faults = 0 if self._reaped is None else reaped.faults - self._reaped.faults
        if not faults and not others:
            return None
        self._always = True
        held_bytes = self._held_bytes()
        ended_bytes = (
            faults * high_water.PAGE_BYTES
        )  # all that they can have filled, one after the other or together
        return TreeTaken(
            max(own_peak_bytes, held_bytes), own_peak_bytes + ended_bytes + 2 * held_bytes, held_bytes
        )

    def _before_start(self) -> None:
        if self._is_in_call and self._probe is None and not is_starting():
            self._open()

    def _open(self) -> None:
        if not self._lock.acquire(blocking=False):
            return  # another thread is at it, or this is the start of the helper
        try:
            if self._probe is None:
                probe = Probe("task")
                self._opened_bytes = high_water.resident_bytes()
                probe.begin()
                self._probe = probe
                self._tell_helper(helper_pid())
        finally:
            self._lock.release()

    def _others(self) -> list[int]:
        """What lives or has ended below this process, the helper left out, which is its child by adoption."""
        return [pid for pid in children.descendants() if pid != helper_pid()]

    def _held_bytes(self) -> int:
        return sum(proportional_bytes(pid) or 0 for pid in self._others())

    def _forget(self) -> None:
        """In a forked child: it is part of the call, and measures nothing."""
        self._is_in_call = False
        self._lock = threading.Lock()
        self._probe = None

    def _noticing(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def start(*args: Any, **kwargs: Any) -> Any:
            with contextlib.suppress(Exception):  # what keeps us from measuring is no business of the call's
                self._before_start()
            return function(*args, **kwargs)

        return start
