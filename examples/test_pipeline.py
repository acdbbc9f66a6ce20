"""The whole job under pytest: worker processes, threads behind a semaphore, narrow columns, rising scales."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import columns
import parsers
import pytest

from pytest_membudget import (
    FallbackExecutor,
    MemoryEstimator,
    MemorySemaphore,
    Scale,
    SyntheticFile,
)
from pytest_membudget.plugin.fixtures import Membudget

MakeFile = Callable[..., SyntheticFile]
MakeFiles = Callable[..., list[SyntheticFile]]


@pytest.fixture
def mixed_files(synthetic_file: MakeFile) -> list[Path]:
    """Small and medium files of three kinds; each ends as its kind does, so that `parse` knows its parser."""
    return [
        synthetic_file(size, kind=kind).path for kind in ("csv", "json", "xml") for size in ("500 kB", "2 MB")
    ]


@pytest.fixture
def batches(memory_scale: Scale, synthetic_files: MakeFiles) -> list[Path]:
    """The scale's rows, cut into its batches."""
    return [file.path for file in synthetic_files(memory_scale, kind="xml")]


@pytest.mark.memory_budget("600 MiB")
def test_a_mixed_batch_is_finished_in_worker_processes(mixed_files: list[Path]) -> None:
    with FallbackExecutor(max_workers=2) as executor:
        batch = executor.run(parsers.parse, mixed_files)
    assert [outcome.error for outcome in batch.outcomes] == [None] * len(mixed_files)
    assert {outcome.level for outcome in batch.outcomes} == {"process"}
    assert [outcome.item for outcome in batch.outcomes] == mixed_files


@pytest.mark.memory_budget("60 MiB")
def test_threads_behind_a_semaphore_stay_within_its_budget(mixed_files: list[Path]) -> None:
    # Eight threads at once would take 100 MiB and more; the semaphore lets in what fits into 40 MiB.
    semaphore = MemorySemaphore("40 MiB")
    estimator = MemoryEstimator(gamma=12, overhead="1 MB")

    def parse(path: Path) -> object:
        with semaphore.reserve(estimator.estimate_file_memory(path.stat().st_size), timeout_s=60):
            return parsers.parse(path)

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(parse, mixed_files))


def test_narrow_columns_take_less_than_half(synthetic_file: MakeFile, membudget: Membudget) -> None:
    made = synthetic_file("5 MB", kind="smiles")
    with membudget.measuring("wide") as wide:
        wide_table = columns.molecules(made.path, narrow=False)
    with membudget.measuring("narrow") as narrow:
        narrow_table = columns.molecules(made.path, narrow=True)
    assert narrow_table["C"].sum() == wide_table["C"].sum()
    assert narrow.measurement.peak_bytes < wide.measurement.peak_bytes / 2


@pytest.mark.memory_budget("400 MiB")
@pytest.mark.memory_scales("micro", "small", "medium")
def test_the_job_at_rising_scales(
    memory_scale: Scale, batches: list[Path], fallback_executor: FallbackExecutor
) -> None:
    # The fixture has the scale's workers, and tells the table what each task took.
    with fallback_executor:
        batch = fallback_executor.run(parsers.xml_totals, batches)
    assert len(batch.values) == memory_scale.batches
