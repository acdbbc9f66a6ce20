"""A test while pytest runs it: the one class of the plugin that touches a `pytest.Item` after the hooks.

What judges, reruns and keeps scales gets a `RunningTest`: the frozen plan, and by name the few things that only the item can
do. Those are to give what fixtures made, to run its call again with nothing of pytest's own piling up, and to fail.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
from _pytest.outcomes import Failed

from pytest_membudget.errors import IsolatedCrashError, OverBudgetError
from pytest_membudget.originals import restored
from pytest_membudget.plugin import is_worker
from pytest_membudget.plugin.markers import budget_of
from pytest_membudget.plugin.plans import PLAN, Plan
from pytest_membudget.records.judgement import Budget
from pytest_membudget.records.storage import from_here

if TYPE_CHECKING:
    from pytest_membudget.plugin.fixtures import Membudget
    from pytest_membudget.plugin.judging import Judged
    from pytest_membudget.plugin.repetition import Repetition

_PEAK, _VERDICT = "membudget_peak_bytes", "membudget_verdict"


class OverBudget(OverBudgetError, Failed):  # noqa: N818 - this is what pytest prints; its base ends in Error
    """The test took too much; `xfail(raises=OverBudgetError)` expects it."""

    def __init__(self, message: str) -> None:
        Failed.__init__(self, message, pytrace=False)


class IsolatedCrash(IsolatedCrashError, Failed):  # noqa: N818 - likewise
    """The test's own interpreter died; `xfail(raises=IsolatedCrashError)` expects it."""

    def __init__(self, message: str) -> None:
        Failed.__init__(self, message, pytrace=False)


class RunningTest:
    """One planned test while it runs.

    `judged` is what is known of it so far, `judging_s` what its judgements took, and `membudget` its fixture of that name, once made.
    """

    def __init__(self, item: pytest.Item, plan: Plan) -> None:
        self._item = item
        self.plan = plan
        self.config = item.config
        self.path = item.path
        self.judged: Judged | None = None
        self.judging_s = 0.0
        self.membudget: Membudget | None = None
        self._repetition: Repetition | None = None

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
            from pytest_membudget.plugin.repetition import Repetition

            self._repetition = Repetition(self._item)

    @property
    def has_kept_failures(self) -> bool:
        """Whether the body failed or skipped without raising: a unittest case hands that to the item."""
        return bool(getattr(self._item, "_excinfo", None))

    def repeating(self, *, fresh_fixtures: bool) -> AbstractContextManager[Callable[[], None]]:
        """Gives a function that runs the test's body once more, where its growth is to be judged: see `Repetition.running`."""
        self.stop_clock()
        assert self._repetition is not None
        return self._repetition.running(fresh_fixtures=fresh_fixtures)

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
