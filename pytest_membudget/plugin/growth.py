"""`memory_growth`: repeats a test's body, with the fixtures it has, and judges whether memory grows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from _pytest.logging import LogCaptureHandler

from pytest_membudget.gate.growth import judge_growth
from pytest_membudget.measurement.growth.check import check_growth
from pytest_membudget.originals import logging, warnings
from pytest_membudget.plugin.fresh.run import leave_time_limit
from pytest_membudget.plugin.markers import GrowthMark
from pytest_membudget.records.growth import Growth
from pytest_membudget.records.judgement import Judgement


def grow(item: pytest.Item, mark: GrowthMark, *, strict: bool) -> tuple[Growth, Judgement]:
    """Runs the body until its growth is known, or the marker's time is over.

    Raises:
        BaseException: what the body raises in one of its runs.
    """
    leave_time_limit(item)
    growth = check_growth(_body(item), mark.per_call_bytes, timeout_s=mark.timeout_s, label=item.name)
    return growth, judge_growth(growth, strict)


def _body(item: pytest.Item) -> Callable[[], None]:
    """One run of the test function: plain, async and unittest alike, since each plugin's `runtest` is called."""
    capture = item.config.pluginmanager.get_plugin("capturemanager")
    in_memory = item.config.getoption("capture", "no") in {"sys", "tee-sys"}

    def run_once() -> None:
        # pytest keeps warnings, log records and captured text of the whole call: that growth is not the test's.
        with warnings.catch_warnings(record=True):
            item.runtest()
        _raise_unittest_failure(item)
        for handler in logging.getLogger().handlers:
            if isinstance(handler, LogCaptureHandler):
                handler.reset()
        if in_memory and capture is not None:
            capture.read_global_capture()

    return run_once


def _raise_unittest_failure(item: Any) -> None:
    """A unittest case hands its failures to the item instead of raising them."""
    for failure in getattr(item, "_excinfo", None) or ():
        raise failure.value
