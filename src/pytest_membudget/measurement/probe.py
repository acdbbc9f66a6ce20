"""Measuring a block that runs here: `measuring`, `measure` and the `Probe` behind both."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from pytest_membudget.errors import MeasurementError
from pytest_membudget.measurement import high_water
from pytest_membudget.records.measurement import Measurement

WITHOUT_RESET = (
    "the kernel offers no resettable high-water mark here: the peak is the larger of the readings before "
    "and after the block, and what came and went between them is missed; measure_isolated would see it"
)


class Probe:
    """One measurement: `begin()`, the block, `finish()`; then `measurement` holds what was found."""

    def __init__(self, label: str = "", *, interval_s: float | None = None, settle: bool = False) -> None:
        self.label = label
        self.interval_s = interval_s
        self.settle = settle
        self._mark: high_water.Mark | None = None
        self._start_bytes = 0
        self._start_s = 0.0
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
        """Starts the measurement: what is held now is the start."""
        self._measurement = None
        self._mark = high_water.open_mark()
        self._start_bytes = self._mark.start_bytes if self._mark else high_water.resident_bytes()
        self._start_s = time.perf_counter()

    def finish(self, value: Any = None) -> Measurement:
        """Ends the measurement; `value` is what the block returned."""
        duration_s = time.perf_counter() - self._start_s
        end_bytes = high_water.resident_bytes()
        total_bytes = high_water.close_mark(self._mark) if self._mark else max(self._start_bytes, end_bytes)
        peak_bytes = max(0, total_bytes - self._start_bytes)
        self._measurement = Measurement(
            peak_bytes=peak_bytes,
            peak_upper_bytes=peak_bytes,
            total_peak_bytes=total_bytes,
            start_bytes=self._start_bytes,
            end_bytes=end_bytes,
            duration_s=duration_s,
            processes=1,
            source="kernel" if self._mark else "sampled",
            label=self.label,
            caveats=() if self._mark else (WITHOUT_RESET,),
            value=value,
        )
        return self._measurement


@contextlib.contextmanager
def measuring(label: str = "", *, interval_s: float | None = None, settle: bool = False) -> Iterator[Probe]:
    """Measures the block: `probe.measurement` is there when it ends, also when it raised."""
    probe = Probe(label, interval_s=interval_s, settle=settle)
    probe.begin()
    try:
        yield probe
    finally:
        probe.finish()


def measure(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Measurement:
    """Runs `fn` here and measures it; its result is in `value`, its exception propagates."""
    with measuring(getattr(fn, "__qualname__", "")) as probe:
        value = fn(*args, **kwargs)
    return msgspec.structs.replace(probe.measurement, value=value)
