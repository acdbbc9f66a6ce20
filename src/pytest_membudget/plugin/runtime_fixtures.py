"""The parts of `runtime` as fixtures; an indirect parameter or the test's scale configures them."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_membudget.records.scale import Scale
from pytest_membudget.runtime import FallbackExecutor, MemoryEstimator, MemorySemaphore


def make_estimator(request: pytest.FixtureRequest) -> MemoryEstimator:
    """The preset that the parameter names, or an estimator with the arguments that it gives."""
    parameter = getattr(request, "param", "dataframe")
    return MemoryEstimator.preset(parameter) if isinstance(parameter, str) else MemoryEstimator(**parameter)


def make_semaphore(request: pytest.FixtureRequest) -> MemorySemaphore:
    """The parameter is its budget, or a mapping of arguments."""
    parameter = getattr(request, "param", None)
    return MemorySemaphore(**parameter) if isinstance(parameter, dict) else MemorySemaphore(parameter)


def make_executor(request: pytest.FixtureRequest, estimator: MemoryEstimator) -> FallbackExecutor:
    """The parameter is a mapping of arguments; without one, workers and calls in flight are those of the scale."""
    arguments: dict[str, Any] = dict(getattr(request, "param", {}))
    if not arguments and "memory_scale" in request.fixturenames:
        scale: Scale = request.getfixturevalue("memory_scale")
        arguments = {"max_workers": scale.workers, "max_in_flight": scale.in_flight}
    return FallbackExecutor(**{"estimator": estimator, **arguments})
