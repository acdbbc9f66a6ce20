"""A program and a test of a user's, read by type checkers and never run: what they call keeps its types."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import assert_type

import pytest

from pytest_membudget import (
    BatchResult,
    Calibration,
    FallbackExecutor,
    Growth,
    Measurement,
    Membudget,
    MemoryEstimator,
    MemoryLimit,
    Outcome,
    SyntheticFile,
    calibrate,
    check_growth,
    measure,
    measure_isolated,
    measuring,
    memory_limit,
    synthesize,
)


def count(path: str | Path) -> int:
    return len(Path(path).read_bytes())


def measurements() -> None:
    assert_type(measure(count, "a.csv"), Measurement[int])
    assert_type(measure(count, "a.csv").value, int)
    assert_type(measure_isolated(count, "a.csv").value, int)
    assert_type(measure(count, "a.csv").peak_bytes, int)
    assert_type(measure(count, "a.csv").caveats, tuple[str, ...])
    with measuring("block") as probe:
        pass
    assert_type(probe.measurement.peak_upper_bytes, int)
    assert_type(check_growth(lambda: None), Growth)
    assert_type(memory_limit(), MemoryLimit)
    assert_type(synthesize("a.csv", "1 MB"), SyntheticFile)


def batches(paths: list[Path]) -> None:
    estimator: MemoryEstimator = MemoryEstimator.preset("dataframe")
    with FallbackExecutor(budget="1 GB", estimator=estimator) as executor:
        assert_type(executor.submit(count, paths[0]), Future[int])
        assert_type(executor.map(count, paths), Iterator[int])
        assert_type(executor.run(count, paths), BatchResult[int])
        assert_type(executor.run(count, paths).values, list[int])
        assert_type(executor.run(count, paths).outcomes[0].value, int | None)
        assert_type(executor.stream(count, paths), Iterator[Outcome[int]])
        assert_type(executor.stream_async(count, paths), AsyncIterator[Outcome[int]])
        assert_type(executor.options(memory="1 MB").submit(count, paths[0]), Future[int])
        outcome: Outcome = executor.run(count, paths).outcomes[0]  # without a type, as before
    assert outcome.peak_bytes is not None


def calibration(path: Path) -> int:
    assert_type(calibrate(count, sizes=("1 MB", "2 MB", "4 MB")), Calibration)
    return calibrate(count).bound(path.stat().st_size)


@pytest.mark.memory_budget("1 MiB", tolerance="20%")
def test_blocks(membudget: Membudget, synthetic_file: Callable[..., SyntheticFile]) -> None:
    assert_type(membudget.measure(count, synthetic_file("1 kB").path).value, int)
    with membudget.measuring() as probe:
        pass
    membudget.check(probe.measurement, "1 MiB")
    assert_type(membudget.budget_bytes, int | None)
