"""The batches that tests ran with the fixture `fallback_executor`, kept for the report.

They are kept in the folder that all processes of the session share, so that the one that reports sees them all.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pytest_membudget.plugin.shared import shared_folder
from pytest_membudget.records.batch import BatchSummary, summarize_batch
from pytest_membudget.records.run import BatchResult
from pytest_membudget.runtime import FallbackExecutor

_FILE = "batches.jsonl"


class NotingExecutor(FallbackExecutor):
    """A `FallbackExecutor` that remembers the figures of what it ran."""

    def __init__(self, *arguments: Any, title: str, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._title = title
        self.summaries: list[BatchSummary] = []

    def run(self, *arguments: Any, **options: Any) -> BatchResult:
        """As ever."""
        batch = super().run(*arguments, **options)
        turn = len(self.summaries) + 1
        self.summaries.append(
            summarize_batch(batch, self._title if turn == 1 else f"{self._title}, batch {turn}")
        )
        return batch


def keep(config: pytest.Config, summaries: Sequence[BatchSummary]) -> None:
    """Adds them to the session's, where there is to be a report."""
    if summaries and config.pluginmanager.has_plugin("membudget-measuring"):
        lines = b"".join(msgspec.json.encode(each) + b"\n" for each in summaries)
        with (shared_folder(config) / _FILE).open("ab") as stream:
            stream.write(lines)


def kept(folder: Path) -> tuple[BatchSummary, ...]:
    """Those of the session; of a test that was run again, the last."""
    file = folder / _FILE
    if not file.exists():
        return ()
    found = [msgspec.json.decode(line, type=BatchSummary) for line in file.read_bytes().splitlines()]
    return tuple({each.title: each for each in found}.values())
