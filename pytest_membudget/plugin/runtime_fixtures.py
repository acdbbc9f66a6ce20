"""The parts of `runtime` as fixtures; an indirect parameter or the test's scale configures them."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_membudget.calibration import check_fresh, named_calibration
from pytest_membudget.errors import UsageError
from pytest_membudget.measurement import environment
from pytest_membudget.plugin.batches import NotingExecutor
from pytest_membudget.records.scale import Scale
from pytest_membudget.runtime import ExecutorPolicy, MemoryEstimator, MemorySemaphore
from pytest_membudget.runtime.estimator import PRESETS
from pytest_membudget.stats.learning import Aim

_ALL_ALIKE = ExecutorPolicy(small_batch=1)


def make_estimator(request: pytest.FixtureRequest, *, strict: bool) -> MemoryEstimator:
    """The preset or the calibration that the parameter names, or an estimator with the arguments that it gives.

    Raises:
        UsageError: no such preset or calibration, or one that no longer holds under `--membudget-strict`.
    """
    parameter = getattr(request, "param", "dataframe")
    if isinstance(parameter, str):
        parameter = {"preset": parameter} if parameter in PRESETS else {"calibration": parameter}
    if "preset" in parameter:
        return MemoryEstimator.preset(parameter["preset"])
    if "calibration" in parameter:
        return _calibrated(request, parameter["calibration"], parameter.get("aim", "safe"), strict=strict)
    return MemoryEstimator(**parameter)


def _calibrated(request: pytest.FixtureRequest, name: str, aim: Aim, *, strict: bool) -> MemoryEstimator:
    """The estimator of a calibration that the project keeps; what has changed since is a warning, or an error."""
    calibration = named_calibration(name, request.config.rootpath)
    doubts = check_fresh(calibration, environment())
    if doubts and strict:
        raise UsageError(f"calibration {name!r} is refused under --membudget-strict: {'; '.join(doubts)}")
    for doubt in doubts:
        request.node.warn(pytest.PytestWarning(f"calibration {name!r}: {doubt}"))
    return calibration.estimator(aim)


def make_semaphore(request: pytest.FixtureRequest) -> MemorySemaphore:
    """The parameter is its budget, or a mapping of arguments."""
    parameter = getattr(request, "param", None)
    return MemorySemaphore(**parameter) if isinstance(parameter, dict) else MemorySemaphore(parameter)


def make_executor(request: pytest.FixtureRequest, estimator: MemoryEstimator) -> NotingExecutor:
    """The parameter is a mapping of arguments; workers and calls in flight are those of the scale, where there is one.

    At a scale even a batch of one or two files goes to worker processes, so that all scales run alike.
    """
    arguments: dict[str, Any] = {"estimator": estimator}
    if "memory_scale" in request.fixturenames:
        scale: Scale = request.getfixturevalue("memory_scale")
        arguments |= {"max_workers": scale.workers, "max_in_flight": scale.in_flight, "policy": _ALL_ALIKE}
    return NotingExecutor(**{**arguments, **getattr(request, "param", {}), "title": request.node.nodeid})
