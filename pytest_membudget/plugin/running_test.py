"""A test while pytest runs it: the one class of the plugin that touches a `pytest.Item` after the hooks.

What judges, reruns and keeps scales gets a `RunningTest`: the frozen plan, and by name the few things that only the item can
do. Those are to give what fixtures made, to run its call again with nothing of pytest's own piling up, and to fail.
"""

from __future__ import annotations

import sys as live_sys  # modules are loaded meanwhile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
from _pytest.capture import CaptureFixture
from _pytest.logging import LogCaptureHandler
from _pytest.outcomes import Failed

from pytest_membudget.errors import IsolatedCrashError, OverBudgetError
from pytest_membudget.originals import contextlib, logging, os, restored, warnings
from pytest_membudget.plugin import is_worker
from pytest_membudget.plugin.markers import budget_of
from pytest_membudget.plugin.plans import PLAN, Plan
from pytest_membudget.records.judgement import Budget
from pytest_membudget.records.storage import from_here

if TYPE_CHECKING:
    from pytest_membudget.plugin.judging import Judged

_PEAK, _VERDICT = "membudget_peak_bytes", "membudget_verdict"
_UNDO_LISTS = ("_setattr", "_setitem")
"""Where `pytest.MonkeyPatch` keeps what it has to undo."""
_RECORDERS = frozenset({"pytest_httpx", "pytest_mock", "requests_mock", "respx"})
"""Plugins whose fixtures record each call: with the test's own run their records end at its teardown."""


class OverBudget(OverBudgetError, Failed):  # noqa: N818 - this is what pytest prints; its base ends in Error
    """The test took too much; `xfail(raises=OverBudgetError)` expects it."""

    def __init__(self, message: str) -> None:
        Failed.__init__(self, message, pytrace=False)


class IsolatedCrash(IsolatedCrashError, Failed):  # noqa: N818 - likewise
    """The test's own interpreter died; `xfail(raises=IsolatedCrashError)` expects it."""

    def __init__(self, message: str) -> None:
        Failed.__init__(self, message, pytrace=False)


class RunningTest:
    """One planned test while it runs. `judged` is what is known of it so far, `judging_s` what its judgements took."""

    def __init__(self, item: pytest.Item, plan: Plan) -> None:
        self._item = item
        self.plan = plan
        self.config = item.config
        self.path = item.path
        self.judged: Judged | None = None
        self.judging_s = 0.0
        self._recorded_before: list[tuple[list[Any], int]] = []
        self._patched_before: list[tuple[Any, dict[str, int]]] = []
        self._folder_before = ""

    @property
    def nodeid(self) -> str:
        """As pytest reports it now, with the group that pytest-xdist's loadgroup scheduling appends."""
        return self._item.nodeid

    @property
    def bare_nodeid(self) -> str:
        """Without that group, as a session without workers has it."""
        group = self._item.get_closest_marker("xdist_group")
        name, at, _ = self.nodeid.rpartition("@")
        return name if at and group is not None and is_worker(self.config) else self.nodeid

    @property
    def parameters(self) -> Mapping[str, Any]:
        """Those that it is parametrized by."""
        callspec = getattr(self._item, "callspec", None)
        return callspec.params if callspec is not None else {}

    def value(self, fixture: str) -> Any:
        """What the fixture gave; `None` where the test does not take it, or has not got it yet."""
        return (getattr(self._item, "funcargs", None) or {}).get(fixture)

    def budget(self, default_bytes: int | None) -> Budget:
        """Its budget in bytes; asked for after its fixtures were made.

        Raises:
            ValueError: a function failed or gave no size, or there is no file to estimate for.
        """
        return budget_of(self._item, self.plan.budget, default_bytes)

    def others(self) -> list[RunningTest]:
        """All planned tests of the session, this one included."""
        return [
            RunningTest(item, item.stash[PLAN]) for item in self._item.session.items if PLAN in item.stash
        ]

    def stop_clock(self) -> None:
        """Stops pytest-timeout's clock: the test itself is over, what follows repeats it and has limits of its own."""
        cancel = getattr(self.config.hook, "pytest_timeout_cancel_timer", None)
        if cancel is not None:
            cancel(item=self._item)

    def begin_call(self) -> None:
        """Starts afresh; what fixtures have recorded by now belongs to no run of the body."""
        self.judged, self.judging_s = None, 0.0
        if self.plan.growth is not None:
            self._folder_before = _current_folder()
            self._recorded_before = [
                (each, len(each))
                for value in _fixtures(self._item)
                if _is_recorders(value)
                for each in _lists_of(value)
            ]
            self._patched_before = [
                (value, {name: len(getattr(value, name)) for name in _UNDO_LISTS})
                for value in _fixtures(self._item)
                if isinstance(value, pytest.MonkeyPatch)
            ]

    @property
    def has_kept_failures(self) -> bool:
        """Whether the body failed or skipped without raising: a unittest case hands that to the item."""
        return bool(getattr(self._item, "_excinfo", None))

    @contextmanager
    def repeating(self, *, fresh_fixtures: bool) -> Iterator[Callable[[], None]]:
        """Yields a function that runs the test's body once more; what that prints and reports is dropped.

        It raises what the body raises, with a note that says that this was a repetition.
        """
        self.stop_clock()
        for patch, lengths in self._patched_before:
            _undo_since(patch, lengths)  # what the own run has deleted cannot be deleted once more
        with (
            _in_folder(self._folder_before),
            _output_kept(self._item),
            _own_run_set_aside(self._item, self._recorded_before),
            _reports_withheld(self._item) as subtest_failures,
        ):
            yield _body(
                self._item, subtest_failures, folder=self._folder_before, fresh_fixtures=fresh_fixtures
            )

    def keep(self, judged: Judged) -> None:
        """Keeps what was found for the test's report, and its figures among the JUnit properties."""
        self.judged = judged
        properties = self._item.user_properties
        if properties:
            properties[:] = [each for each in properties if each[0] not in {_PEAK, _VERDICT}]
        properties += ((_PEAK, judged.measurement.peak_bytes), (_VERDICT, judged.verdict))

    def fail(self, message: str) -> NoReturn:
        """Raises `OverBudget` from a frame at the test's first line: its own are gone, and `--pdb` opens in the last one.

        Raises:
            OverBudget: always.
        """
        with restored():
            file, line, _ = self._item.reportinfo()
            message += f"\n\n{from_here(file)}:{(line or 0) + 1}: {OverBudget.__name__}"
        blank_lines = "\n" * (line or 0)
        code = compile(f"{blank_lines}raise over_budget", str(file), "exec").replace(co_name=self._item.name)
        names = vars(self._item.module) if hasattr(self._item, "module") else {}
        exec(code, names, {"over_budget": OverBudget(message)})  # noqa: S102 - the line above, among the test's names
        raise AssertionError("unreachable")

    def shorten_summary(self, report: Any, failure: BaseException) -> None:
        """Gives the short summary and `--tb=line` the first line of the message, at the test's own place."""
        crash = getattr(report.longrepr, "reprcrash", None)
        if isinstance(failure, OverBudget | IsolatedCrash) and crash is not None:
            path, line, _ = self._item.reportinfo()
            crash.path, crash.lineno = str(path), (line or 0) + 1
            crash.message = (failure.msg or "").partition("\n")[0]


_RUNNING = pytest.StashKey[RunningTest]()


def running_test(item: pytest.Item) -> RunningTest | None:
    """The one of this item; `None` where nothing of it is to be measured."""
    test = item.stash.get(_RUNNING, None)
    if test is None:
        plan = item.stash.get(PLAN, None)
        if plan is not None:
            test = item.stash[_RUNNING] = RunningTest(item, plan)
    return test


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
