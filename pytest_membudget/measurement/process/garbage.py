"""Collecting garbage around blocks that are judged, without making a suite slow and without failing its tests.

A full collection takes 10 to 400 ms where much is alive, so one before each short test would take longer than the tests. Fully
is therefore collected while that takes at most a twentieth of the time; at other times only what is young. Old garbage then stays
where it is, which changes a figure only where Python itself collects it inside the block: `FullCollections` tells.

What a finalizer raises, and a `ResourceWarning` under `-W error` is an exception too, belongs to whatever test left the garbage.
pytest would blame the test in whose call it comes. So it is kept, and handed on by `report_deferred` when the tests are over.
"""

from __future__ import annotations

import sys as live_sys  # its hook changes by design
from typing import Any, NamedTuple

from pytest_membudget.originals import contextlib, gc, time

SHARE_OF_TIME = 0.05
_OLDEST = 2
_YOUNG = 1
_MOST_DEFERRED = 1000


class FullCollections(NamedTuple):
    """Python's full collections so far: their number, and the number of objects that they freed."""

    runs: int
    collected: int

    @classmethod
    def so_far(cls) -> FullCollections:
        """As the interpreter counts them (1 µs)."""
        oldest = gc.get_stats()[_OLDEST]
        return cls(oldest["collections"], oldest["collected"])


class GarbageCollector:
    """Collects before judged blocks: fully while that takes at most `share` of the time since it was made."""

    def __init__(self, share: float = SHARE_OF_TIME) -> None:
        self._share = share
        self._began_s = time.perf_counter()
        self._spent_s = self._last_s = 0.0
        self._deferred: list[_Unraisable] = []

    def collect(self) -> bool:
        """Collects; whether it was a full collection, after which no old garbage is left."""
        begun_s = time.perf_counter()
        if self._spent_s + self._last_s > self._share * (begun_s - self._began_s):
            self._collect(_YOUNG)
            return False
        self.collect_fully()
        self._last_s = time.perf_counter() - begun_s
        self._spent_s += self._last_s
        return True

    def collect_fully(self) -> None:
        """Whatever it takes."""
        self._collect(_OLDEST)

    def report_deferred(self) -> None:
        """Hands what finalizers raised to the hook that is installed now."""
        deferred, self._deferred = self._deferred, []
        for each in deferred:
            # The interpreter's own hook takes nothing but the interpreter's own records.
            with contextlib.suppress(TypeError):
                live_sys.unraisablehook(each)  # type: ignore[arg-type]

    def _collect(self, generation: int) -> None:
        before = live_sys.unraisablehook
        live_sys.unraisablehook = self._defer
        try:
            gc.collect(generation)
        finally:
            live_sys.unraisablehook = before

    def _defer(self, raised: Any) -> None:
        if len(self._deferred) < _MOST_DEFERRED:
            # Neither the object nor its frames: what was garbage must go now.
            error = None if raised.exc_value is None else raised.exc_value.with_traceback(None)
            self._deferred.append(
                _Unraisable(raised.exc_type, error, None, raised.err_msg, _Shown(raised.object))
            )


class _Shown:
    """Stands for an object that is gone, and reads like it."""

    def __init__(self, original: object) -> None:
        self._text = object.__repr__(original)
        with contextlib.suppress(Exception):  # whatever its own representation raises
            self._text = repr(original)

    def __repr__(self) -> str:
        return self._text


class _Unraisable(NamedTuple):
    """What `sys.unraisablehook` gets."""

    exc_type: type[BaseException]
    exc_value: BaseException | None
    exc_traceback: None
    err_msg: str | None
    object: _Shown


collector = GarbageCollector()
at_end = GarbageCollector()
"""After judged blocks that hold more than at their start, with a share of the time that is its own."""
