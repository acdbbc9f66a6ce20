"""Do calibrated bounds hold on sizes that were not calibrated, and at what price?"""

import os
import shutil
from collections.abc import Iterator

import calibrated_parsers as parsers
import msgspec
import pytest

from pytest_membudget import calibrate, synthesize
from pytest_membudget.calibration.run_executors import run_fresh
from pytest_membudget.calibration.worker import refer_to
from pytest_membudget.stats.bounds import rate_interval

pytestmark = pytest.mark.timeout(0)
MB = 1_000_000
HELD_OUT_MB = (1.5, 1.5, 3, 3, 5, 5, 6, 6, 7.2, 7.2, 9, 9, 10, 10, 32)
FLOOR_BYTES = 16 * MB
FUNCTIONS = [
    (parsers.csv_rows, "csv"),
    (parsers.csv_streaming, "csv"),
    (parsers.json_document, "json"),
    (parsers.element_tree, "xml"),
    (parsers.sqlite_memory, "csv"),
    (parsers.pandas_frame, "csv"),
    (parsers.polars_frame, "csv"),
    (parsers.arrow_table, "csv"),
    (parsers.soup, "html"),
    (parsers.all_pairs, "text"),
]
CALIBRATION_SECONDS = 60
REFERENCES = {"document (12× + 500 MB)": (12, 500 * MB), "dataframe (3× + 50 MB)": (3, 50 * MB)}


class Judged(msgspec.Struct):
    name: str
    size_bytes: int
    true_bytes: int
    bound_bytes: int
    expected_bytes: int
    extrapolated: bool


@pytest.fixture(scope="module")
def judged() -> Iterator[list[Judged]]:
    collected: list[Judged] = []
    yield collected


@pytest.mark.parametrize(("fn", "kind"), FUNCTIONS, ids=[fn.__name__ for fn, _ in FUNCTIONS])
def test_one_function(fn, kind, judged, figure, tmp_path):
    only = os.environ.get("MEMBUDGET_FUNCTIONS")
    if only and fn.__name__ not in only.split(","):
        pytest.skip(f"not named in MEMBUDGET_FUNCTIONS={only}")
    found = calibrate(fn, kind=kind, budget_seconds=CALIBRATION_SECONDS, progress=False)
    tiny = synthesize(tmp_path / f"tiny.{kind}", 20_000, kind).path
    rows = []
    for seed, size_mb in enumerate(HELD_OUT_MB, start=1000):
        made = synthesize(tmp_path / f"held.{kind}", round(size_mb * MB), kind, seed)
        answer = run_fresh(refer_to(fn), tiny, made.path, tmp_path)
        assert not answer.failed_at, answer.error
        size, peak = made.size_bytes, answer.peak_bytes
        rows.append(
            Judged(
                fn.__name__, size, peak, found.bound(size), found.expect(size), found.is_extrapolated(size)
            )
        )
    judged += rows
    shutil.rmtree(tmp_path, ignore_errors=True)
    missed = [row for row in rows if row.true_bytes > row.bound_bytes]
    worst = max(abs(row.expected_bytes - row.true_bytes) / max(row.true_bytes, MB) for row in rows)
    figure(
        f"{fn.__name__}: γ, overhead, base",
        f"{found.gamma:.2f}, {found.overhead_bytes / MB:.1f} MB, {found.base_bytes / MB:.0f} MB",
        "curved" if found.curved else "",
    )
    figure(
        f"{fn.__name__}: held-out runs covered", f"{len(rows) - len(missed)}/{len(rows)}", _described(missed)
    )
    figure(f"{fn.__name__}: largest error of the estimate", f"{worst:.1%}")
    assert found.curved == (fn is parsers.all_pairs)


def test_all_functions_together(judged, figure):
    if len({row.name for row in judged}) < len(FUNCTIONS):
        pytest.skip("only some functions ran")
    covered = sum(row.true_bytes <= row.bound_bytes for row in judged)
    low, high = rate_interval(covered, len(judged))
    figure(
        "all: held-out runs covered",
        f"{covered}/{len(judged)} = {covered / len(judged):.1%}",
        f"at least 95%; true rate {low:.1%} to {high:.1%}",
    )
    inside = [row for row in judged if not row.extrapolated]
    over = _over_allocation([(row.bound_bytes, row.true_bytes) for row in inside])
    figure("all: over-allocation within the calibrated range", f"{over:.1%}", "at most 20%")
    for name, (gamma, overhead) in REFERENCES.items():
        pairs = [(gamma * row.size_bytes + overhead, row.true_bytes) for row in inside]
        kept = sum(given >= true for given, true in pairs)
        figure(
            f"all: {name}", f"{kept}/{len(pairs)} covered", f"over-allocation {_over_allocation(pairs):.0%}"
        )
    assert len(judged) >= 120
    assert covered / len(judged) >= 0.95
    assert over <= 0.20


def _over_allocation(pairs):
    return sum(given for given, _ in pairs) / sum(max(true, FLOOR_BYTES) for _, true in pairs) - 1


def _described(missed):
    return ", ".join(
        f"{row.size_bytes / MB:g} MB by {row.true_bytes / row.bound_bytes - 1:.1%}" for row in missed
    )
