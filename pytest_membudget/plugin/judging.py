"""Holds a measured test against all that it asks for: budget, law of scales, growth, regression gate.

1. `Judge` asks each of them in turn; `Judged` keeps the judgements, and gives the gravest verdict and what they say.
2. `record_of` makes the record of it, which reports show.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from pytest_membudget.errors import text_of
from pytest_membudget.gate.budgets import judge, judge_growth
from pytest_membudget.originals import restored
from pytest_membudget.plugin.markers import GrowthMark, ScalesMark
from pytest_membudget.plugin.options import Settings
from pytest_membudget.plugin.plans import Plan
from pytest_membudget.plugin.running_test import RunningTest
from pytest_membudget.records.judgement import Budget, Growth, Judgement, Verdict
from pytest_membudget.records.measurement import Measurement
from pytest_membudget.records.report import AllocationSite, Comparison, Outcome, TestRecord

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
        for judgement in self.judgements:  # noqa: SIM110 - a generator's frame would take longer than the answer
            if judgement.failed:
                return True
        return False

    @property
    def verdict(self) -> Verdict:
        """The gravest of all verdicts."""
        if len(self.judgements) == 1:
            return self.judgements[0].verdict
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

    def has_more(self, test: RunningTest) -> bool:
        """Whether anything but its budget judges that test."""
        plan = test.plan
        return self.gate is not None or plan.growth is not None or "memory_scale" in plan.fixtures

    def by_all(self, test: RunningTest, judged: Judged) -> Judged:
        """The judgements of a test that passed by itself: law of scales, growth, regression gate.

        Raises:
            BaseException: what the test raises in one of the repetitions that its growth is judged by.
        """
        judged = judged.with_judgement(self._by_law(test, judged))
        if test.plan.growth is not None and not judged.failed:
            growth = _repeated(test, test.plan.growth)
            judged = judged.with_judgement(judge_growth(growth, self.settings.strict))._replace(growth=growth)
        # A failure that only warns leaves a test that passes, which has to stay comparable.
        is_settled = judged.failed and not self.settings.warn
        return judged if is_settled or self.gate is None else self._by_gate(test, judged, self.gate)

    def _by_law(self, test: RunningTest, judged: Judged) -> Judgement | None:
        """Keeps the row of a scale; the last one of its test is judged by all."""
        if "memory_scale" not in test.plan.fixtures:
            return None
        from pytest_membudget.plugin.scales import add_row, judge_law, scale_of

        scale = scale_of(test)
        with restored():
            is_last = scale is not None and add_row(test, scale, judged.measurement, judged.budget)
        mark = test.plan.scales or ScalesMark()
        if not is_last or (mark.law is None and mark.at_most is None):
            return None
        # Isolated scales all pay alike for what is loaded once.
        return judge_law(test, mark, again=not test.plan.isolate, strict=self.settings.strict)

    @staticmethod
    def _by_gate(test: RunningTest, judged: Judged, gate: Gate) -> Judged:
        record = record_of(test.plan, judged)
        tolerance = test.plan.budget.tolerance if test.plan.budget is not None else None
        compared = gate.compare(test, record, tolerance)
        if compared is None:
            return judged._replace(samples_bytes=gate.samples_for_baseline(test, record.peak_bytes))
        comparison, judgement = compared
        return judged.with_judgement(judgement)._replace(
            comparison=comparison, samples_bytes=comparison.samples_bytes
        )


def _repeated(test: RunningTest, mark: GrowthMark) -> Growth:
    """Runs the body until its growth is known, or the marker's time is over."""
    from pytest_membudget.measurement.growth.check import check_growth

    raised: BaseException | None = None

    def call() -> None:
        nonlocal raised
        try:
            body()
        except BaseException as error:
            raised = error
            raise

    try:
        with test.repeating(fresh_fixtures=mark.fresh_fixtures) as body:
            return check_growth(call, mark.per_call_bytes, timeout_s=mark.timeout_s, label=test.plan.name)
    except (
        Exception
    ) as error:  # a library that replaces threads, no descriptor left: a test must not fail by being judged
        if raised is not None:
            raise
        return _not_judged(mark, test.plan.name, error)


def _not_judged(mark: GrowthMark, label: str, error: Exception) -> Growth:
    """What is known where our own part of it failed."""
    return Growth(
        verdict="inconclusive",
        bytes_per_call=0.0,
        low_bytes_per_call=-(2.0**63),
        high_bytes_per_call=2.0**63,
        allowed_bytes_per_call=mark.per_call_bytes,
        calls=0,
        duration_s=0.0,
        label=label,
        caveats=(f"it could not be judged in the state that the test left its process in: {text_of(error)}",),
    )


def record_of(plan: Plan, judged: Judged, outcome: Outcome = "passed") -> TestRecord:
    """The record as of the end of the call; its outcome is known when the reports are."""
    measurement, budget = judged.measurement, judged.budget
    return TestRecord(
        nodeid=plan.nodeid,
        outcome=outcome,
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
