"""Is a larger scale predicted from the smaller ones? By what their tasks took, beside a line through their totals."""

from collections.abc import Callable
from typing import NamedTuple

import calibrated_parsers as parsers
import msgspec
import pytest

from pytest_membudget import ExecutorPolicy, FallbackExecutor, Scale, synthesize
from pytest_membudget.calibration.growth_law import predict_next
from pytest_membudget.calibration.scales import default_scales, run_scales

MB = 1_000_000
ALL_ALIKE = ExecutorPolicy(small_batch=1)


def alike(name, batches):
    """The demo's scales: more files of 4 MB each."""
    return Scale(name=name, rows=1, size_bytes=4 * MB * batches, batches=batches, workers=2, in_flight=2)


SAME_FILES = [alike("micro", 2), alike("small", 6), alike("medium", 12)]
LARGER_FILES = list(default_scales().values())


class Case(NamedTuple):
    fn: Callable[..., object]
    kind: str
    scales: list[Scale]
    repeats: int


@pytest.mark.parametrize(
    "case",
    [
        Case(parsers.element_tree, "xml", SAME_FILES, repeats=5),
        Case(parsers.element_tree, "xml", LARGER_FILES, repeats=2),
        Case(parsers.json_document, "json", LARGER_FILES, repeats=2),
        Case(parsers.pandas_frame, "csv", LARGER_FILES, repeats=2),
    ],
    ids=["xml, more files", "xml, larger files", "json, larger files", "pandas, larger files"],
)
def test_the_next_scale(case, figure, tmp_path, request):
    def files(scale):
        size_bytes = scale.size_bytes // scale.batches
        for number in range(scale.batches):
            path = tmp_path / f"{size_bytes}-{number}.{case.kind}"
            if not path.exists():
                synthesize(path, size_bytes, case.kind, number)
            yield path

    def job(scale):
        with FallbackExecutor(scale.workers, scale.in_flight, policy=ALL_ALIKE) as executor:
            return executor.run(case.fn, list(files(scale)))

    job(case.scales[-1])  # makes the files, and starts what stays
    by_tasks, at_most, by_totals = [], [], []
    for _ in range(case.repeats):
        rows = run_scales(job, case.scales).rows
        for place in range(2, len(rows)):
            row = rows[place]
            by_line = predict_next(
                [msgspec.structs.replace(one, tasks=None) for one in rows[:place]], row.scale
            )
            assert row.tasks and row.predicted_bytes and row.predicted_bound_bytes and by_line
            by_tasks.append(row.predicted_bytes / row.peak_bytes - 1)
            at_most.append(row.predicted_bound_bytes / row.peak_bytes - 1)
            by_totals.append(by_line.expected_bytes / row.peak_bytes - 1)
    name = request.node.callspec.id
    for what, errors in (("by tasks", by_tasks), ("at most", at_most), ("by totals", by_totals)):
        figure(f"{name}, {what}", f"{min(errors):+.0%} to {max(errors):+.0%}", f"{len(errors)} predictions")
    assert min(at_most) >= 0
    assert max(map(abs, by_tasks)) <= 0.60
