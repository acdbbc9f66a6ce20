"""The tables of batches: one row a batch, and one a host of the cluster that it ran on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pytest_membudget.records.batch import BatchSummary
from pytest_membudget.report.tables import Column, Table, name, number
from pytest_membudget.report.wording import NONE
from pytest_membudget.units import format_duration, format_size


def batch_table(batches: Sequence[BatchSummary], *, verbose: bool = True) -> Table | None:
    """What became of each batch; its events and doubts stand below. Nobody fails for growth that is not known."""
    if not batches:
        return None
    columns = (
        name("batch"),
        number("inputs"),
        number("failed"),
        number("repeated"),
        number("workers"),
        number("total peak"),
        number("budget"),
        number("time"),
        Column("growth"),
        Column("ran on"),
    )
    rows = tuple(
        (
            batch.title,
            f"{batch.inputs:,}",
            f"{batch.failed:,}",
            f"{batch.repeated:,}",
            f"{batch.workers:,}",
            format_size(batch.peak_bytes),
            format_size(batch.budget_bytes),
            format_duration(batch.duration_s),
            _growth_text(batch, verbose),
            ", ".join(batch.levels),
        )
        for batch in batches
    )
    notes = tuple(
        note if len(batches) == 1 else f"{batch.title}: {note}"
        for batch in batches
        for note in _notes(batch, verbose)
    )
    return Table("batches", "Batches", columns, rows, notes)


def _growth_text(batch: BatchSummary, verbose: bool) -> str:
    """The verdict; a dash where there is none, for one that is open is told with its reason or not at all."""
    if batch.growth is None or (batch.growth.verdict == "inconclusive" and not verbose):
        return NONE
    return batch.growth.verdict


def _notes(batch: BatchSummary, verbose: bool) -> Iterator[str]:
    """Growth that is not clean, what happened, and what is doubtful."""
    if batch.growth is not None and batch.growth.verdict in (
        {"leak", "inconclusive"} if verbose else {"leak"}
    ):
        yield f"growth in workers: {batch.growth.in_words('task')}"
    yield from batch.failures
    yield from batch.events
    yield from batch.caveats


def host_table(batches: Sequence[BatchSummary]) -> Table | None:
    """What each batch used of each host."""
    rows = tuple(
        (
            batch.title,
            use.host,
            f"{use.workers:,}",
            f"{use.tasks:,}",
            format_size(use.peak_upper_bytes),
            format_size(use.budget_bytes),
        )
        for batch in batches
        for use in batch.hosts
    )
    if not rows:
        return None
    columns = (
        name("batch"),
        name("host"),
        number("workers"),
        number("tasks"),
        number("peak"),
        number("budget"),
    )
    many = any(use.workers > 1 for batch in batches for use in batch.hosts)
    notes = ("where a host has several workers, its peak is at most this: their own peaks added up",)
    return Table("hosts", "Hosts of the batches", columns, rows, notes if many else ())
