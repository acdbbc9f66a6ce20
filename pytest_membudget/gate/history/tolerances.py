"""Each test's own tolerance, from how much its peaks scattered over the revisions since it last changed.

The default has to suit all tests. A quiet one may be held tighter, so that less slips through; one whose peaks jump is given what it
has shown, so that it is run again less often. Only rises count: a test that sometimes uses less must not be allowed more.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import NamedTuple

from pytest_membudget.gate.history.store import open_history
from pytest_membudget.gate.history.trend import find_trends
from pytest_membudget.records.history import TestTrend
from pytest_membudget.stats.samples import median
from pytest_membudget.units import Tolerance

#: With fewer revisions at its present level a test keeps the tolerance of all.
FEWEST_REVISIONS = 20
#: The newest revisions that are looked at.
_MOST_REVISIONS = 200
_SHARE_OF_RISES = 0.95
_MARGIN = 1.5
_LEAST, _MOST = 0.03, 0.5
#: A bound of small figures: allocators grow in steps of a quarter or half a MiB.
_ABSOLUTE_BYTES = 512 * 1024


class LearnedTolerance(NamedTuple):
    """How far a test may rise, and over how many revisions that was seen."""

    tolerance: Tolerance
    revisions: int

    def __str__(self) -> str:
        """For a message: "3% + 512 KiB, learned from its last 38 revisions"."""
        return f"{self.tolerance}, learned from its last {self.revisions} revisions"


def learn_tolerances(path: str | os.PathLike[str]) -> Mapping[str, LearnedTolerance]:
    """The tolerance of each test of the history at `path` that has been at one level for long enough.

    Raises:
        FileNotFoundError: there is none.
        UnreadableFileError: it is not a history.
    """
    with open_history(path) as history:
        trends = find_trends(history, os.fspath(path)).tests
    learned = ((trend.nodeid, learn_tolerance(trend)) for trend in trends)
    return {nodeid: found for nodeid, found in learned if found is not None}


def learn_tolerance(trend: TestTrend) -> LearnedTolerance | None:
    """One and a half times the rise above its level that the test kept within in 95% of its revisions."""
    start = max((change.until_index or change.index for change in trend.changes), default=0)
    peaks = trend.peaks_bytes[start:][-_MOST_REVISIONS:]
    if len(peaks) < FEWEST_REVISIONS:
        return None
    level = median(peaks)
    rises = sorted(max(0.0, peak / level - 1) if level else 0.0 for peak in peaks)
    usual = rises[math.ceil(_SHARE_OF_RISES * len(rises)) - 1]
    share = min(max(_MARGIN * usual, _LEAST), _MOST)
    return LearnedTolerance(Tolerance(share=round(share, 3), absolute_bytes=_ABSOLUTE_BYTES), len(peaks))
