"""When a monitor cleans up, what it reports, and how memory is given back.

Thresholds of resident memory, and growth that will reach the limit soon, are reasons and alerts. A cleanup is the program's callbacks,
a collection and a trim of the heap.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from pytest_membudget.errors import UsageError, text_of
from pytest_membudget.measurement.process import heap, high_water
from pytest_membudget.measurement.system.machine import memory_reading
from pytest_membudget.originals import gc
from pytest_membudget.records.monitor import CleanupEvent, CleanupResult
from pytest_membudget.stats.growth import Slope
from pytest_membudget.units import format_share, format_size

REAL_LIMIT_SHARE = 0.95
"""An emergency at the latest: beyond this share of the real limit the kernel may end the process."""

ALERT_AHEAD_MIN = 5.0
"""Growth that reaches the limit within so many minutes is an alert."""

_AGAIN_SHARE = 0.02
"""Past the threshold still, cleaning up again is worth it when so much of the limit came on top."""

_logger = logging.getLogger("pytest_membudget")


class Reason(NamedTuple):
    """Why to clean up now."""

    text: str
    emergency: bool


class Thresholds:
    """Judges what is resident. All sizes are bytes.

    Args:
        limit_bytes: the soft limit that the shares are of.
        real_limit_bytes: what the kernel allows.
        cleanup_share: past this share of the limit each reading asks for a cleanup.
        emergency_factor: past this multiple of the limit it is an emergency.
        alerts: where it is reported.
    """

    def __init__(
        self,
        limit_bytes: int,
        real_limit_bytes: int,
        *,
        cleanup_share: float,
        emergency_factor: float,
        alerts: Alerts,
    ) -> None:
        self._limit_bytes = limit_bytes
        self._cleanup_bytes = int(cleanup_share * limit_bytes)
        self._emergency_bytes = int(min(emergency_factor * limit_bytes, REAL_LIMIT_SHARE * real_limit_bytes))
        self._alerts = alerts
        self._left_bytes = 0

    def reason(self, rss_bytes: int, due: str = "", *, again: bool = True) -> Reason | None:
        """Why to clean up: past a threshold, else because it is `due` (the reason); `None` where neither holds.

        Past the cleanup threshold and not `again`, only where memory came on top since the last cleanup.
        """
        emergency, past = rss_bytes >= self._emergency_bytes, rss_bytes >= self._cleanup_bytes
        shown = f"{format_size(rss_bytes)} resident, {format_share(rss_bytes / max(1, self._limit_bytes))} of the limit"
        self._alerts.update("threshold", holds=past, sentence=f"{shown} of {format_size(self._limit_bytes)}")
        self._alerts.update("emergency", holds=emergency, sentence=f"emergency: {shown}", level=logging.ERROR)
        grown = rss_bytes >= self._left_bytes + _AGAIN_SHARE * self._limit_bytes
        if not (due or (past and (again or grown))):
            return None
        return Reason(f"emergency: {shown}" if emergency else shown if past else due, emergency)

    def cleaned_up(self, left_bytes: int) -> None:
        """Records what the latest cleanup left."""
        self._left_bytes = left_bytes

    def check_growth(self, growth_per_min: Slope, rss_bytes: int) -> None:
        """An alert where memory grows for certain, and so fast that it reaches the limit soon."""
        room_bytes = self._limit_bytes - rss_bytes
        self._alerts.update(
            "growth",
            holds=growth_per_min.low > 0 and room_bytes < growth_per_min.low * ALERT_AHEAD_MIN,
            sentence=f"memory grows by {format_size(growth_per_min.value)} a minute and has {format_size(room_bytes)} left",
        )


class Alerts:
    """The latest alerts. A condition is reported once, and again only after it had passed."""

    def __init__(self, on_alert: Callable[[str], Any] | None, most: int) -> None:
        self.sentences: deque[str] = deque(maxlen=most)
        self._on_alert = on_alert
        self._lasting: set[str] = set()

    def update(self, condition: str, *, holds: bool, sentence: str, level: int = logging.WARNING) -> None:
        """Reports `sentence` where `condition` begins to hold."""
        if not holds:
            self._lasting.discard(condition)
            return
        if condition in self._lasting:
            return
        self._lasting.add(condition)
        self.sentences.append(sentence)
        _logger.log(level, sentence)
        if self._on_alert is None:
            return
        try:
            self._on_alert(sentence)
        except Exception:  # the callback must not end the work that is watched
            _logger.warning("the alert callback failed", exc_info=True)


class ProcessFigures(NamedTuple):
    """This process at one instant, in bytes, and what is available to it beyond."""

    rss_bytes: int
    uss_bytes: int
    vms_bytes: int
    available_bytes: int


class ProcessMemory:
    """Everything that a monitor asks about this process, in one place that tests can replace."""

    def resident_bytes(self) -> int:
        """What is resident now (about 15 µs)."""
        return high_water.resident_bytes()

    def figures(self) -> ProcessFigures:
        """The full figures (about 10 ms for 1 GiB: unshared memory is counted page by page)."""
        try:
            rss_bytes, uss_bytes, vms_bytes = _psutil_figures()
        except ImportError:
            rss_bytes = uss_bytes = vms_bytes = high_water.resident_bytes()
        return ProcessFigures(rss_bytes, uss_bytes, vms_bytes, memory_reading().available_bytes)

    def limit_bytes(self) -> int:
        """The real limit of this process."""
        return memory_reading().limit.bytes

    def open_mark(self) -> high_water.Mark | None:
        """Starts to keep the exact peak; `None` where the kernel cannot."""
        return high_water.open_mark()

    def mark_peak_bytes(self, mark: high_water.Mark) -> int:
        """The most that was resident since `mark` was opened, which stays open."""
        return max(mark.peak_bytes, high_water.high_water_bytes())

    def close_mark(self, mark: high_water.Mark) -> int:
        """The most that was resident since `mark` was opened."""
        return high_water.close_mark(mark)

    def heap(self) -> heap.Heap:
        """Malloc's heap, in use and kept."""
        return heap.read_heap()

    def trim(self) -> None:
        """Gives free memory back to the system, as far as malloc can."""
        heap.trim_heap()

    def collect_and_trim(self) -> None:
        """Collects cyclic garbage and gives free memory back to the system."""
        gc.collect()
        heap.trim_heap()


def _psutil_figures() -> tuple[int, int, int]:
    import psutil

    memory = psutil.Process().memory_full_info()
    return int(memory.rss), int(memory.uss), int(memory.vms)


class _Callback(NamedTuple):
    run: Callable[[], Any]
    emergency_only: bool

    @property
    def name(self) -> str:
        return getattr(self.run, "__qualname__", None) or repr(self.run)


class Cleaner:
    """Runs the registered callbacks in their order. One that raises is reported and stops none of the others."""

    def __init__(self, memory: ProcessMemory, clock: Callable[[], float], most: int) -> None:
        self.events: deque[CleanupEvent] = deque(maxlen=most)
        self._memory = memory
        self._clock = clock
        self._callbacks: list[_Callback] = []

    def register(self, callback: Callable[[], Any], *, emergency_only: bool) -> None:
        """Adds a callback without arguments.

        Raises:
            UsageError: it cannot be called.
        """
        if not callable(callback):
            raise UsageError(f"a cleanup callback is called without arguments; {callback!r} cannot be called")
        self._callbacks.append(_Callback(callback, emergency_only))

    def unregister(self, callback: Callable[[], Any]) -> None:
        """Removes a callback; nothing happens where it is not registered."""
        self._callbacks = [known for known in self._callbacks if known.run != callback]

    def run(self, reason: str, *, emergency: bool) -> CleanupResult:
        """Cleans up, and keeps the event."""
        before_bytes = self._memory.resident_bytes()
        failures = tuple(
            failure for callback in list(self._callbacks) if (failure := _failure(callback, emergency))
        )
        self._memory.collect_and_trim()
        event = CleanupEvent(
            at_s=self._clock(),
            reason=reason,
            emergency=emergency,
            before_bytes=before_bytes,
            after_bytes=self._memory.resident_bytes(),
            failures=failures,
        )
        self.events.append(event)
        return CleanupResult(
            ran=True,
            before_bytes=before_bytes,
            after_bytes=event.after_bytes,
            reason=reason,
            emergency=emergency,
            failures=failures,
        )


def _failure(callback: _Callback, emergency: bool) -> str:
    """Runs one callback, if this is its case; what it raised, or nothing."""
    if callback.emergency_only and not emergency:
        return ""
    try:
        callback.run()
    except Exception as error:  # the program's own cleanup must not end its work, nor the other cleanups
        _logger.warning("cleanup callback %s failed", callback.name, exc_info=True)
        return f"{callback.name}: {type(error).__name__}: {text_of(error)}"
    return ""
