"""Runs a test's body again, with nothing of pytest's own, or of its fixtures, piling up: how growth is judged.

A `Repetition` is made before the test's own run, and keeps what belongs to no run of the body. `Repetition.running` sets aside what the
own run has printed, logged, recorded and patched, and hands out a function that runs the body once more.
"""

from __future__ import annotations

import sys as live_sys  # modules are loaded meanwhile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from _pytest.capture import CaptureFixture
from _pytest.logging import LogCaptureHandler

from pytest_membudget.originals import contextlib, logging, os, warnings

_UNDO_LISTS = ("_setattr", "_setitem")
"""Where `pytest.MonkeyPatch` keeps what it has to undo."""
_RECORDERS = frozenset({"pytest_httpx", "pytest_mock", "requests_mock", "respx"})
"""Plugins whose fixtures record each call: with the test's own run their records end at its teardown."""


class Repetition:
    """How one test's body is run again. What its fixtures have recorded and patched when this is made belongs to no run of the body."""

    def __init__(self, item: pytest.Item) -> None:
        self._item = item
        self._folder = _current_folder()
        self._recorded = [
            (each, len(each))
            for value in _fixtures(item)
            if _is_recorders(value)
            for each in _lists_of(value)
        ]
        self._patched = [
            (value, {name: len(getattr(value, name)) for name in _UNDO_LISTS})
            for value in _fixtures(item)
            if isinstance(value, pytest.MonkeyPatch)
        ]

    @contextmanager
    def running(self, *, fresh_fixtures: bool) -> Iterator[Callable[[], None]]:
        """Yields a function that runs the test's body once more; what that prints and reports is dropped.

        It raises what the body raises, with a note that says that this was a repetition.
        """
        for patch, lengths in self._patched:
            _undo_since(patch, lengths)  # what the own run has deleted cannot be deleted once more
        with (
            _in_folder(self._folder),
            _output_kept(self._item),
            _own_run_set_aside(self._item, self._recorded),
            _reports_withheld(self._item) as subtest_failures,
        ):
            yield _body(self._item, subtest_failures, folder=self._folder, fresh_fixtures=fresh_fixtures)


def _body(
    item: pytest.Item, subtest_failures: list[Any], *, folder: str, fresh_fixtures: bool
) -> Callable[[], None]:
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
            else:
                _go_to(folder)
            # pytest keeps the warnings of the whole call.
            with (
                _state_of_one_call(item),
                warnings.catch_warnings(record=True) as seen,
                _recorded_in(seen, item),
            ):
                item.runtest()
            _raise_kept_failures(item, subtest_failures)
        except BaseException as error:
            error.add_note(_note(number, fresh_fixtures=fresh_fixtures))
            raise

    return run_once


def _current_folder() -> str:
    """Empty where it has been removed."""
    with contextlib.suppress(OSError):
        return str(os.getcwd())
    return ""


def _go_to(folder: str) -> None:
    """Back to where the body began: what it opens by a relative path is there, also where it has left or removed the folder."""
    with contextlib.suppress(OSError):
        os.chdir(folder)


@contextmanager
def _in_folder(folder: str) -> Iterator[None]:
    """Starts there, and ends where the test's own run has ended, as far as that folder exists."""
    own = _current_folder()
    _go_to(folder)
    try:
        yield
    finally:
        _go_to(own)


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


def _fixtures(item: Any) -> list[Any]:
    """What fixtures gave the test."""
    return list((getattr(item, "funcargs", None) or {}).values())


def _log_handlers() -> list[LogCaptureHandler]:
    return [each for each in logging.getLogger().handlers if isinstance(each, LogCaptureHandler)]


@contextmanager
def _recorded_in(seen: Any, item: Any) -> Iterator[None]:
    """Gives `recwarn` the warnings of one call of the body."""
    with contextlib.ExitStack() as stack:
        for value in _fixtures(item):
            if isinstance(value, pytest.WarningsRecorder):
                stack.callback(vars(value).update, _list=value.list)
                value._list = seen  # noqa: SLF001 - there is no public way
        yield


@contextmanager
def _own_run_set_aside(item: Any, recorded_before: list[tuple[list[Any], int]]) -> Iterator[None]:
    """Keeps what the test's own run has logged, printed and recorded away from its repetitions; it is back at the teardown."""
    with contextlib.ExitStack() as stack:
        for each, length in recorded_before:
            stack.callback(each.__setitem__, slice(length, None), each[length:])
            del each[length:]
        for handler in _log_handlers():
            stack.callback(vars(handler).update, records=handler.records, stream=handler.stream)
            handler.reset()
        for value in _fixtures(item):
            if isinstance(value, CaptureFixture):
                unread = value.readouterr()
                stack.callback(vars(value).update, _captured_out=unread.out, _captured_err=unread.err)
        yield


@contextmanager
def _state_of_one_call(item: Any) -> Iterator[None]:
    """Takes back what one run of the body leaves in pytest's own objects and in those that fixtures made."""
    properties = list(item.user_properties)
    values = _fixtures(item)
    attributes = getattr(getattr(item, "instance", None), "__dict__", {})
    if "_asyncioRunner" in attributes:  # unittest makes an instance of an async case to run once
        attributes["_asyncioRunner"] = None
    with contextlib.ExitStack() as stack:
        for value in values:
            stack.enter_context(_fixture_taken_back(value))
        yield
    item.user_properties[:] = properties
    for value in values:
        if isinstance(value, CaptureFixture):
            value.readouterr()
    for handler in _log_handlers():
        handler.reset()
    if (capture := _capture(item)) is not None:
        capture.read_global_capture()


def _fixture_taken_back(value: Any) -> contextlib.AbstractContextManager[None]:
    if isinstance(value, pytest.MonkeyPatch):
        return _undone(value)
    if _is_recorders(value):
        return _records_taken_back(value)
    if _is_mock(value):
        value.reset_mock()  # of the calls of the run before
    return contextlib.nullcontext()


def _is_mock(value: object) -> bool:
    mock = live_sys.modules.get("unittest.mock")  # which imports asyncio: not for its sake alone
    return mock is not None and isinstance(value, mock.NonCallableMock)


def _is_recorders(value: object) -> bool:
    return type(value).__module__.partition(".")[0] in _RECORDERS


@contextmanager
def _records_taken_back(fixture: object) -> Iterator[None]:
    """Takes back what a fixture of such a plugin has recorded meanwhile: calls, answers to come, patches."""
    lists = [(each, len(each)) for each in _lists_of(fixture)]
    try:
        yield
    finally:
        for each, length in lists:
            for added in reversed(each[length:]):
                stop = getattr(getattr(added, "patch", None), "stop", None)  # of pytest-mock
                if stop is not None:
                    stop()
            del each[length:]


def _lists_of(fixture: object) -> list[list[Any]]:
    """The lists that an object holds, and those of the objects in them that the same plugins have made."""
    lists: list[list[Any]] = []
    waiting, met = [fixture], set()
    while waiting:
        each = waiting.pop()
        if id(each) in met:
            continue
        met.add(id(each))
        if isinstance(each, list):
            lists.append(each)
            waiting.extend(each)
        elif _is_recorders(each):
            waiting.extend(getattr(each, "__dict__", {}).values())
    return lists


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


def _undo_since(patch: Any, lengths: dict[str, int]) -> None:
    """Undoes what was patched since the lists had these lengths; the folder and `sys.path` stay as they are."""
    added = {name: getattr(patch, name)[length:] for name, length in lengths.items()}
    for name, length in lengths.items():
        del getattr(patch, name)[length:]
    path, patch._savesyspath = patch._savesyspath, None  # noqa: SLF001 - as `undo` has it
    with _undone(patch):
        for name, entries in added.items():
            setattr(patch, name, entries)
    patch._savesyspath = path  # noqa: SLF001 - likewise


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
        # Not through the streams again: the test may have put others in their place.
        item.add_report_section("call", "stdout", first.out)
        item.add_report_section("call", "stderr", first.err)


@contextmanager
def _reports_withheld(item: pytest.Item) -> Iterator[list[Any]]:
    """Reports of sub-tests belong to the test's own run: those of repetitions are not reported; yields those that failed."""
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
