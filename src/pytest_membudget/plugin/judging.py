"""From a measurement to the record of its test: every judgement that applies, the gravest verdict first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pytest

from pytest_membudget.gate import Budget, Judgement, Verdict, judge
from pytest_membudget.plugin.options import Settings
from pytest_membudget.plugin.plan import Plan
from pytest_membudget.records.measurement import Measurement
from pytest_membudget.records.report import TestRecord

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
        ordered = sorted(self.judgements, key=lambda each: _GRAVEST_FIRST.index(each.verdict))
        return "\n\n".join(each.message for each in ordered if each.message)

    @property
    def caveats(self) -> tuple[str, ...]:
        """Every caveat once."""
        return tuple(dict.fromkeys(caveat for each in self.judgements for caveat in each.caveats))


def judge_test(
    item: pytest.Item, plan: Plan, measurement: Measurement, budget: Budget, settings: Settings
) -> Judged:
    """Holds the measurement against everything that the test asks for."""
    return Judged(measurement, budget, (judge(measurement, budget, strict=settings.strict),))


def record_of(item: pytest.Item, plan: Plan, judged: Judged) -> TestRecord:
    """The record as of the end of the call; its outcome is known when the reports are."""
    measurement, budget = judged.measurement, judged.budget
    return TestRecord(
        nodeid=item.nodeid,
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
        file=item.location[0],
        line=None if item.location[1] is None else item.location[1] + 1,
        shares=measurement.shares,
        timeline=measurement.timeline,
        message=judged.message,
        caveats=judged.caveats,
    )
