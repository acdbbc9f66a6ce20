"""From a measurement to the record of its test: every judgement that applies, the gravest verdict first; and how it fails."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import pytest
from _pytest.outcomes import Failed

from pytest_membudget.errors import IsolatedCrashError, OverBudgetError
from pytest_membudget.gate.budgets import judge
from pytest_membudget.originals import restored
from pytest_membudget.plugin.markers import ScalesMark
from pytest_membudget.plugin.options import Settings
from pytest_membudget.plugin.plans import Plan
from pytest_membudget.records.judgement import Budget, Growth, Judgement, Verdict
from pytest_membudget.records.measurement import Measurement
from pytest_membudget.records.report import AllocationSite, Comparison, TestRecord
from pytest_membudget.records.storage import from_here

if TYPE_CHECKING:
    from pytest_membudget.plugin.baseline_gate import Gate

_GRAVEST_FIRST: Sequence[Verdict] = (
    "killed",
    "crashed",
    "over",
    "leak",
    "regressed",
    "over_upper",
    "inconclusive",
    "within",
    "clean",
    "none",
)


class Judged(NamedTuple):
    """A measured test and all that was found about it."""

    measurement: Measurement
    budget: Budget
    judgements: tuple[Judgement, ...]
    growth: Growth | None = None
    comparison: Comparison | None = None
    samples_bytes: tuple[int, ...] = ()
    allocations: tuple[AllocationSite, ...] = ()
    explanation: str = ""

    @property
    def failed(self) -> bool:
        """Whether the test has to fail."""
        return any(judgement.failed for judgement in self.judgements)

    @property
    def verdict(self) -> Verdict:
        """The gravest of all verdicts."""
        return min((each.verdict for each in self.judgements), key=_GRAVEST_FIRST.index, default="none")

    @property
    def message(self) -> str:
        """What each judgement says, in the order of gravity."""
        speaking = [each for each in self.judgements if each.finding]
        speaking.sort(key=lambda each: _GRAVEST_FIRST.index(each.verdict))
        text = "\n\n".join(
            each.worded(
                # A stopped test has used what the budget's judgement suggests, and would have used more.
                was_stopped=self.verdict == "killed" and each.verdict != "killed",
                is_explained=bool(self.explanation),
            )
            for each in speaking
        )
        return f"{text}\n{self.explanation}" if self.explanation else text

    @property
    def caveats(self) -> tuple[str, ...]:
        """Every caveat once."""
        return tuple(dict.fromkeys(caveat for each in self.judgements for caveat in each.caveats))

    def with_judgement(self, judgement: Judgement | None) -> Judged:
        """One judgement more; without any, this very value."""
        return self if judgement is None else self._replace(judgements=(*self.judgements, judgement))


class Judge:
    """Holds a measurement against everything that its test asks for."""

    def __init__(self, settings: Settings, gate: Gate | None) -> None:
        self.settings = settings
        self.gate = gate

    def by_budget(self, measurement: Measurement, budget: Budget) -> Judged:
        """The judgement that needs nothing but the measurement."""
        return Judged(measurement, budget, (judge(measurement, budget, strict=self.settings.strict),))

    def by_all(self, item: pytest.Item, plan: Plan, judged: Judged) -> Judged:
        """The judgements of a test that passed by itself: law of scales, growth, regression gate.

        Raises:
            BaseException: what the test raises in one of the repetitions that its growth is judged by.
        """
        judged = judged.with_judgement(self._by_law(item, plan, judged))
        if plan.growth is not None and not judged.failed:
            from pytest_membudget.plugin import growth

            found, judgement = growth.grow(item, plan.growth, strict=self.settings.strict)
            judged = judged.with_judgement(judgement)._replace(growth=found)
        # A failure that only warns leaves a test that passes, which has to stay comparable.
        is_settled = judged.failed and not self.settings.warn
        return judged if is_settled or self.gate is None else self._by_gate(item, plan, judged, self.gate)

    def _by_law(self, item: pytest.Item, plan: Plan, judged: Judged) -> Judgement | None:
        """Keeps the row of a scale; the last one of its test is judged by all."""
        if "memory_scale" not in getattr(item, "funcargs", {}):
            return None
        from pytest_membudget.plugin import scales as scale_rows

        scale = scale_rows.scale_of(item)
        with restored():
            is_last = scale is not None and scale_rows.add_row(item, scale, judged.measurement, judged.budget)
        if not is_last:
            return None
        mark = plan.scales or ScalesMark()
        if mark.law is None and mark.at_most is None:
            return None
        from pytest_membudget.plugin.scales import judge_law

        # Isolated scales all pay alike for what is loaded once.
        return judge_law(item, mark, again=not plan.isolate, strict=self.settings.strict)

    @staticmethod
    def _by_gate(item: pytest.Item, plan: Plan, judged: Judged, gate: Gate) -> Judged:
        record = record_of(plan, judged)
        tolerance = plan.budget.tolerance if plan.budget is not None else None
        compared = gate.compare(item, record, tolerance)
        if compared is None:
            samples_bytes = gate.samples_for_baseline(item, record.peak_bytes)
            return judged._replace(samples_bytes=samples_bytes)
        comparison, judgement = compared
        return judged.with_judgement(judgement)._replace(
            comparison=comparison, samples_bytes=comparison.samples_bytes
        )


def record_of(plan: Plan, judged: Judged) -> TestRecord:
    """The record as of the end of the call; its outcome is known when the reports are."""
    measurement, budget = judged.measurement, judged.budget
    return TestRecord(
        nodeid=plan.nodeid,
        outcome="passed",
        verdict=judged.verdict,
        peak_bytes=measurement.peak_bytes,
        peak_upper_bytes=measurement.peak_upper_bytes,
        total_peak_bytes=measurement.total_peak_bytes,
        retained_bytes=measurement.retained_bytes,
        duration_s=measurement.duration_s,
        processes=measurement.processes,
        source=measurement.source,
        interval_s=measurement.interval_s,
        budget_bytes=budget.peak_bytes,
        budget_total_bytes=budget.total_bytes,
        budget_retained_bytes=budget.retained_bytes,
        isolated=plan.isolate,
        file=plan.file,
        line=plan.line,
        samples_bytes=judged.samples_bytes,
        growth=judged.growth,
        comparison=judged.comparison,
        allocations=judged.allocations,
        shares=measurement.shares,
        timeline=measurement.timeline,
        message=judged.message,
        caveats=judged.caveats,
    )


class OverBudget(OverBudgetError, Failed):  # noqa: N818 - this is what pytest prints; its base ends in Error
    """The test took too much; `xfail(raises=OverBudgetError)` expects it."""

    def __init__(self, message: str) -> None:
        Failed.__init__(self, message, pytrace=False)


class IsolatedCrash(IsolatedCrashError, Failed):  # noqa: N818 - likewise
    """The test's own interpreter died; `xfail(raises=IsolatedCrashError)` expects it."""

    def __init__(self, message: str) -> None:
        Failed.__init__(self, message, pytrace=False)


def fail_at_test(item: pytest.Item, message: str) -> NoReturn:
    """Raises `OverBudget` from a frame at the test's first line: its own are gone, and `--pdb` opens in the last one.

    Raises:
        OverBudget: always.
    """
    file, line, _ = item.reportinfo()
    message += f"\n\n{from_here(file)}:{(line or 0) + 1}: {OverBudget.__name__}"
    blank_lines = "\n" * (line or 0)
    code = compile(f"{blank_lines}raise over_budget", str(file), "exec").replace(co_name=item.name)
    names = vars(item.module) if hasattr(item, "module") else {}
    exec(code, names, {"over_budget": OverBudget(message)})  # noqa: S102 - the line above, among the test's names
    raise AssertionError("unreachable")


def tell_shortly(report: Any, item: pytest.Item, failure: BaseException) -> None:
    """Gives the short summary and `--tb=line` the first line of the message, at the test's own place."""
    crash = getattr(report.longrepr, "reprcrash", None)
    if isinstance(failure, OverBudget | IsolatedCrash) and crash is not None:
        path, line, _ = item.reportinfo()
        crash.path, crash.lineno = str(path), (line or 0) + 1
        crash.message = (failure.msg or "").partition("\n")[0]
