"""`memory_growth`: repeats a test's body and judges whether memory grows, with nothing of pytest's own piling up."""

from __future__ import annotations

import sys as live_sys  # its streams change by design
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from _pytest.capture import CaptureFixture
from _pytest.logging import LogCaptureHandler

from pytest_membudget.gate.budgets import judge_growth
from pytest_membudget.measurement.growth.check import check_growth
from pytest_membudget.originals import contextlib, logging, warnings
from pytest_membudget.plugin.fresh.run import skip_time_limit
from pytest_membudget.plugin.markers import GrowthMark
from pytest_membudget.records.judgement import Growth, Judgement

_UNDO_LISTS = ("_setattr", "_setitem")
"""Where `pytest.MonkeyPatch` keeps what it has to undo."""


def grow(item: pytest.Item, mark: GrowthMark, *, strict: bool) -> tuple[Growth, Judgement]:
    """Runs the body until its growth is known, or the marker's time is over.

    Raises:
        BaseException: what the body raises in one of its runs; a note says that it was a repetition.
    """
    skip_time_limit(item)
    with _output_kept(item), _reports_withheld(item) as subtest_failures:
        body = _body(item, subtest_failures, fresh_fixtures=mark.fresh_fixtures)
        growth = check_growth(body, mark.per_call_bytes, timeout_s=mark.timeout_s, label=item.name)
    return growth, judge_growth(growth, strict)


def _body(item: pytest.Item, subtest_failures: list[Any], *, fresh_fixtures: bool) -> Callable[[], None]:
    """One run of the test function: plain, async and unittest alike, since each plugin's `runtest` is called."""
    number = 1
    finalizers = _finalizers(item)
    counts = [len(each) for each in finalizers]

    def run_once() -> None:
        nonlocal number
        number += 1
        try:
            if fresh_fixtures:
                # A fixture of wider scope keeps a finalizer of each fixture that ever used it.
                for each, count in zip(finalizers, counts, strict=True):
                    del each[count:]
                _set_up_again(item)
            # pytest keeps the warnings of the whole call.
            with _state_of_one_call(item), warnings.catch_warnings(record=True):
                item.runtest()
            _raise_kept_failures(item, subtest_failures)
        except BaseException as error:
            error.add_note(_note(number, fresh_fixtures=fresh_fixtures))
            raise

    return run_once


def _note(number: int, *, fresh_fixtures: bool) -> str:
    fixtures = (
        "with fixtures set up again"
        if fresh_fixtures
        else "with the fixtures of the first call; memory_growth(fresh_fixtures=True) sets those of function scope up for each"
    )
    return f"membudget: this was call {number} of the test's body, which memory_growth repeats, {fixtures}"


def _finalizers(item: Any) -> list[list[Any]]:
    """Of the fixtures of wider scope that the test uses."""
    definitions = getattr(getattr(item, "_fixtureinfo", None), "name2fixturedefs", {})
    return [
        each._finalizers  # noqa: SLF001 - there is no public way
        for several in definitions.values()
        for each in several
        if each.scope != "function" and isinstance(getattr(each, "_finalizers", None), list)
    ]


def _set_up_again(item: Any) -> None:
    """Tears down what has function scope and sets it up again, as plugins do that run tests again."""
    state = item.session._setupstate  # noqa: SLF001 - there is no public way
    kept = dict(item.stash._storage)  # noqa: SLF001 - what hooks left there, and fixtures look for when they are torn down
    state.teardown_exact(item.parent)
    for key, value in kept.items():
        item.stash.setdefault(key, value)
    item._initrequest()  # noqa: SLF001 - likewise
    state.setup(item)


@contextmanager
def _state_of_one_call(item: Any) -> Iterator[None]:
    """Takes back what one run of the body leaves in pytest's own objects and in those that fixtures made."""
    properties = list(item.user_properties)
    funcargs = dict(getattr(item, "funcargs", None) or {})
    attributes = getattr(getattr(item, "instance", None), "__dict__", {})
    if "_asyncioRunner" in attributes:  # unittest makes an instance of an async case to run once
        attributes["_asyncioRunner"] = None
    with contextlib.ExitStack() as stack:
        for value in funcargs.values():
            if isinstance(value, pytest.MonkeyPatch):
                stack.enter_context(_undone(value))
            elif _is_mock(value):
                value.reset_mock()  # of the calls of the run before
        yield
    item.user_properties[:] = properties
    for value in funcargs.values():
        if isinstance(value, CaptureFixture):
            value.readouterr()
    for handler in logging.getLogger().handlers:
        if isinstance(handler, LogCaptureHandler):
            handler.reset()
    if (capture := _capture(item)) is not None:
        capture.read_global_capture()


def _is_mock(value: object) -> bool:
    mock = live_sys.modules.get("unittest.mock")  # which imports asyncio: not for its sake alone
    return mock is not None and isinstance(value, mock.NonCallableMock)


@contextmanager
def _undone(patch: Any) -> Iterator[None]:
    """Undoes what is patched meanwhile, and no more."""
    kept = {name: getattr(patch, name) for name in _UNDO_LISTS}
    for name in _UNDO_LISTS:
        setattr(patch, name, [])
    folder, patch._cwd = patch._cwd, None  # noqa: SLF001 - as `undo` has it
    try:
        yield
    finally:
        patch.undo()
        for name, undo in kept.items():
            setattr(patch, name, undo)
        patch._cwd = folder  # noqa: SLF001 - likewise


@contextmanager
def _output_kept(item: pytest.Item) -> Iterator[None]:
    """Keeps what the test printed by itself, and drops what its repetitions print."""
    capture = _capture(item)
    if capture is None:
        yield
        return
    first = capture.read_global_capture()
    try:
        yield
    finally:
        capture.read_global_capture()
        # Through the capture again, for the test's report.
        live_sys.stdout.write(first.out)
        live_sys.stderr.write(first.err)


@contextmanager
def _reports_withheld(item: pytest.Item) -> Iterator[list[Any]]:
    """Reports of sub-tests belong to the test's own run: those of repetitions are not told; yields those that failed."""
    hooks: Any = item.ihook
    log = hooks.pytest_runtest_logreport
    failures: list[Any] = []

    def withhold(report: Any) -> list[Any]:
        if report.failed:
            failures.append(report)
        return []

    hooks.pytest_runtest_logreport = withhold
    try:
        yield failures
    finally:
        hooks.pytest_runtest_logreport = log


def _raise_kept_failures(item: Any, subtest_failures: list[Any]) -> None:
    """A unittest case hands its failures to the item instead of raising them, and so do sub-tests."""
    for failure in getattr(item, "_excinfo", None) or ():
        raise failure.value
    if subtest_failures:
        pytest.fail(f"a sub-test failed: {subtest_failures[0].longreprtext}", pytrace=False)


def _capture(item: pytest.Item) -> Any:
    """Pytest's capture of the whole test, where it captures at all and nothing has suspended it."""
    capture = item.config.pluginmanager.get_plugin("capturemanager")
    return capture if capture is not None and capture.is_globally_capturing() else None
