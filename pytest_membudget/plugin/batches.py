"""The batches that tests ran with the fixture `fallback_executor`, kept for the report and for the scales' prediction."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pytest_membudget.calibration import task_figures
from pytest_membudget.plugin import keeping
from pytest_membudget.records.batch import BatchSummary, summarize_batch
from pytest_membudget.records.run import BatchResult, Breakdown
from pytest_membudget.records.scale import TaskFigures
from pytest_membudget.runtime import FallbackExecutor

_FILE = "batches.jsonl"


class Account(NamedTuple):
    """Where the peak of a batch went, and what its tasks took."""

    breakdown: Breakdown | None
    tasks: TaskFigures | None


class NotingExecutor(FallbackExecutor):
    """A `FallbackExecutor` that remembers the figures of what it ran."""

    def __init__(self, *arguments: Any, title: str, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._title = title
        self.summaries: list[BatchSummary] = []
        self.accounts: list[Account] = []

    def run(self, *arguments: Any, **options: Any) -> BatchResult:
        """As ever."""
        batch = super().run(*arguments, **options)
        self.accounts.append(Account(batch.breakdown, task_figures(batch)))
        turn = len(self.summaries) + 1
        self.summaries.append(
            summarize_batch(batch, self._title if turn == 1 else f"{self._title}, batch {turn}")
        )
        return batch


def keep(config: pytest.Config, summaries: Sequence[BatchSummary]) -> None:
    """Adds them to the session's, where there is to be a report."""
    keeping.keep(config, _FILE, summaries)


def kept(folder: Path) -> tuple[BatchSummary, ...]:
    """Those of the session; of a test that was run again, the last."""
    return tuple({each.title: each for each in keeping.kept(folder, _FILE, BatchSummary)}.values())
