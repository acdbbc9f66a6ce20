"""`memory_scales(law=…)`: is the law told by this session's rows, or must a scale run again first?

A scale that runs first in its process also pays for what is loaded once and kept: modules, caches. That can break a law
that holds, and hide growth. So no law is called broken, and none is believed, because of such a row alone: see
`calibration.warm_up_doubt`.
"""

from __future__ import annotations

import pytest

from pytest_membudget.calibration.growth_law import assert_law, scales_in_doubt
from pytest_membudget.errors import MembudgetError, OverBudgetError
from pytest_membudget.plugin.fresh.run import leave_time_limit, run_fresh
from pytest_membudget.plugin.markers import ScalesMark
from pytest_membudget.plugin.scales.rows import KeptRow, kept_rows, siblings, take_row
from pytest_membudget.plugin.terminal_progress import telling
from pytest_membudget.records.judgement import Judgement

_HOW_AGAIN = "  how       each scale run twice in a fresh interpreter, the second time measured"
_HOW_ISOLATED = "  how       each scale run once, in an interpreter of its own"


def judge_law(item: pytest.Item, mark: ScalesMark, *, again: bool, strict: bool) -> Judgement:
    """Holds the rows of the test against the law of its marker.

    `again` allows runs in fresh interpreters. Where one of them does not pass, a broken law is inconclusive: it fails
    under `strict` only.
    """
    lacking: list[str] = []
    while True:
        kept = kept_rows(item)
        try:
            doubtful = _in_doubt(kept, mark) if again and not lacking else ()
        except MembudgetError as error:
            return Judgement(verdict="none", caveats=(f"the law was not judged: {error}",))
        if not doubtful:
            return _verdict(kept, mark, lacking, strict=strict)
        lacking = [name for name in doubtful if not _run_again(item, name)]


def _in_doubt(kept: list[KeptRow], mark: ScalesMark) -> tuple[str, ...]:
    return scales_in_doubt(
        [each.row for each in kept],
        mark.law,
        mark.at_most,
        first={each.name for each in kept if each.first},
        again={each.name for each in kept if each.again},
    )


def _run_again(item: pytest.Item, name: str) -> bool:
    """Measures the scale in a fresh interpreter; whether its run there passed."""
    leave_time_limit(item)
    other = siblings(item).get(name)
    if other is None:
        return False
    with telling(item.config, f"for its law: {name} again, in a fresh interpreter"):
        report = run_fresh(other, "scale", rehearse=True).reports.get("call")
    if report is None or not report.passed:
        return False
    take_row(item, name)
    return True


def _verdict(kept: list[KeptRow], mark: ScalesMark, lacking: list[str], *, strict: bool) -> Judgement:
    caveats = tuple(
        f"the law goes by the session's own run of {name}, which did not pass in a fresh interpreter"
        for name in lacking
    )
    try:
        assert_law([each.row for each in kept], mark.law, mark.at_most)
    except OverBudgetError as error:
        if lacking:
            text = "\n".join([str(error), *(f"  note      {caveat}" for caveat in caveats)])
            return Judgement(verdict="inconclusive", failed=strict, message=text, caveats=caveats)
        how = _HOW_AGAIN if all(each.again for each in kept) else _HOW_ISOLATED
        return Judgement(verdict="over", failed=True, message=f"{error}\n{how}")
    except MembudgetError as error:
        return Judgement(verdict="none", caveats=(f"the law was not judged: {error}",))
    return Judgement(verdict="within", caveats=caveats)
