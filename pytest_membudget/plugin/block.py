"""The fixture `membudget`: lets a test measure blocks of its own, and see or set its budget while it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec

from pytest_membudget import measurement as room  # each function is loaded when first used
from pytest_membudget.gate import judge, judge_growth
from pytest_membudget.measurement import Probe, memory_limit
from pytest_membudget.plugin.failure import OverBudget
from pytest_membudget.records.growth import Growth
from pytest_membudget.records.judgement import Budget
from pytest_membudget.records.measurement import Measurement, MemoryLimit
from pytest_membudget.units import Size, parse_size

if TYPE_CHECKING:
    from pytest_membudget.calibration import Calibration


class Membudget:
    """What a test gets as the fixture `membudget`. `measurements` holds what it measured, in order."""

    def __init__(self, *, strict: bool = False, interval_s: float | None = None) -> None:
        self.budget = Budget()
        self.measurements: list[Measurement] = []
        self._strict = strict
        self._interval_s = interval_s

    @property
    def budget_bytes(self) -> int | None:
        """What the test itself may add, in bytes; setting it replaces the marker's."""
        return self.budget.peak_bytes

    @budget_bytes.setter
    def budget_bytes(self, size: Size | None) -> None:
        self.budget = msgspec.structs.replace(
            self.budget, peak_bytes=None if size is None else parse_size(size)
        )

    @property
    def limit(self) -> MemoryLimit:
        """The memory limit that binds this process."""
        return memory_limit()

    @contextmanager
    def measuring(self, label: str = "") -> Iterator[Probe]:
        """Measures the block; `probe.measurement` is there when it ends."""
        probe = Probe(label, interval_s=self._interval_s, settle=True)
        probe.begin()
        try:
            yield probe
        finally:
            self.measurements.append(probe.finish())

    def measure(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Measurement:
        """Calls `fn` in this process and measures it; its result is in `value`, its exception propagates."""
        self.measurements.append(room.measure(fn, *args, **kwargs))
        return self.measurements[-1]

    def measure_isolated(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Measurement:
        """Calls `fn` in a fresh interpreter and measures it there; see `pytest_membudget.measure_isolated`."""
        self.measurements.append(room.measure_isolated(fn, *args, **kwargs))
        return self.measurements[-1]

    def check(
        self,
        measurement: Measurement,
        peak: Size | None = None,
        *,
        total: Size | None = None,
        retained: Size | None = None,
    ) -> None:
        """Fails the test when `measurement` is over one of these sizes.

        Raises:
            OverBudgetError: it is; the message is the one of a test over its budget.
            ValueError: one of the sizes cannot be read.
        """
        budget = Budget(
            peak_bytes=None if peak is None else parse_size(peak),
            total_bytes=None if total is None else parse_size(total),
            retained_bytes=None if retained is None else parse_size(retained),
        )
        judgement = judge(measurement, budget, strict=self._strict)
        if judgement.failed:
            raise OverBudget(
                f"{measurement.label}: {judgement.message}" if measurement.label else judgement.message
            )

    def check_growth(
        self, fn: Callable[[], Any], per_call: Size = "0 B", *, timeout_s: float = 10.0
    ) -> Growth:
        """Calls `fn` again and again, and fails the test when memory grows by more than `per_call` bytes a call.

        Raises:
            OverBudgetError: it leaks, or under `--membudget-strict` cannot be decided within `timeout_s` seconds.
        """
        growth = room.check_growth(fn, per_call, timeout_s=timeout_s)
        judgement = judge_growth(growth, self._strict)
        if judgement.failed:
            raise OverBudget(judgement.message)
        return growth

    def calibrate(self, fn: Callable[..., Any], **options: Any) -> Calibration:
        """γ, overhead and a bound of `fn(path)`, from runs in fresh interpreters; `options` are those of `calibrate`."""
        from pytest_membudget.calibration import calibrate

        return calibrate(fn, **options)
