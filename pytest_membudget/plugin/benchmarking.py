"""With pytest-benchmark: the peak of one further run of the benchmarked function, outside the timed rounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from pytest_membudget.measurement.probe import Probe
from pytest_membudget.records.caveats import Caveat
from pytest_membudget.records.measurement import Measurement


def is_benchmark(fixture: object) -> bool:
    """Whether this is pytest-benchmark's fixture."""
    return any(kind.__module__ == "pytest_benchmark.fixture" for kind in type(fixture).__mro__)


class BenchmarkProbe:
    """Stands in for the `Probe` of a whole test: nothing is measured while rounds are timed."""

    def __init__(self, benchmark: Any, interval_s: float | None) -> None:
        self.benchmark = benchmark
        self._further_run = Probe(
            "one further run of the benchmarked function", interval_s=interval_s, settle=True
        )
        self._measurement: Measurement | None = None

    def begin(self) -> None:
        """From now on the fixture measures one run more than it times."""
        probe, kind = self, type(self.benchmark)

        class Measured(kind):  # type: ignore[misc, valid-type]
            """The fixture that the test sees."""

            def __call__(self, function_to_benchmark: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
                result = super().__call__(function_to_benchmark, *args, **kwargs)
                probe.measure(function_to_benchmark, args, kwargs)
                return result

            def pedantic(self, target: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
                result = super().pedantic(target, *args, **kwargs)
                probe.measure_pedantic(target, *args, **kwargs)
                return result

        self.benchmark.__class__ = Measured

    def measure(
        self, function: Callable[..., Any], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> None:
        """One run, whose peak also goes into the benchmark's saved JSON."""
        self._further_run.begin()
        try:
            function(*args, **(kwargs or {}))
        finally:
            self._measurement = self._further_run.finish()
        self.benchmark.extra_info["membudget_peak_bytes"] = self._measurement.peak_bytes
        self.benchmark.extra_info["membudget_peak_upper_bytes"] = self._measurement.peak_upper_bytes

    def measure_pedantic(
        self,
        target: Callable[..., Any],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        setup: Callable[[], Any] | None = None,
        teardown: Callable[..., Any] | None = None,
        **rounds: Any,
    ) -> None:
        """Likewise, with what prepares and clears each round."""
        prepared = setup() if setup is not None else None
        args, kwargs = prepared if prepared is not None else (args, kwargs)
        self.measure(target, args, kwargs)
        if teardown is not None:
            teardown(*args, **(kwargs or {}))

    def finish(self) -> Measurement:
        """What the further run took; its duration is the mean of the timed rounds, where there were any."""
        if self._measurement is None:
            self._further_run.begin()
            return msgspec.structs.replace(
                self._further_run.finish(), caveat_records=(Caveat("benchmark-not-called"),)
            )
        stats = getattr(self.benchmark, "stats", None)
        mean_s = stats.stats.mean if stats is not None and stats.stats.data else self._measurement.duration_s
        return msgspec.structs.replace(self._measurement, duration_s=mean_s)
