"""From a calibration to the memory that a job of another system asks for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pytest_membudget.calibration.model import Calibration
from pytest_membudget.errors import UsageError
from pytest_membudget.records.job_request import JobRequest
from pytest_membudget.stats.learning import Aim
from pytest_membudget.units import format_as_written, format_count

ATTEMPTS = 3
SAFE_CONTENT = 0.99
"""Of jobs that the first attempt is to cover under the aim "safe", with the calibration's confidence."""


def request_for(
    found: Calibration,
    items: Sequence[Any],
    aim: Aim = "safe",
    *,
    interpreter_bytes: int,
    attempts: int = ATTEMPTS,
) -> JobRequest:
    """What a job asks for that may get any of these inputs: enough for the one that takes most.

    Args:
        found: of the function that the job calls.
        items: its inputs; none where the calibration does not go by them.
        aim: "safe" or "cheap", see `Calibration.estimator`.
        interpreter_bytes: a bare interpreter, which is not in the calibration of a task.
        attempts: the first, and those after one that ran out of memory, each with more.

    Raises:
        UsageError: no inputs.
    """
    if not items and found.predictors:
        raise UsageError(f"the memory follows {' and '.join(found.predictors)}; name the inputs")
    if attempts < 1:
        raise UsageError(f"attempts is {attempts}; give 1 or more")
    estimator = found.estimator(aim)
    given = list(items) or [0]

    def first_bytes(item: Any) -> int:
        estimate_bytes = estimator.estimate_file_memory(item)
        return (
            estimate_bytes if aim == "cheap" else max(estimate_bytes, found.bound(item, content=SAFE_CONTENT))
        )

    largest = max(given, key=first_bytes)
    ladder = [first_bytes(largest)]
    while len(ladder) < attempts:
        ladder.append(estimator.retry_bytes(largest, ladder[-1]))
    idle_bytes = 0 if found.file.peak_of == "job" else interpreter_bytes + found.base_bytes
    return JobRequest(
        largest=_in_words(found, largest),
        inputs=len(items),
        aim=aim,
        content=SAFE_CONTENT if aim == "safe" else None,
        confidence=found.confidence,
        attempts_bytes=tuple(idle_bytes + task_bytes for task_bytes in ladder),
        idle_bytes=idle_bytes,
        caveats=tuple(_caveats(found, given)),
    )


def _in_words(found: Calibration, item: Any) -> str:
    features = found.features(item)
    if isinstance(features, int):
        return format_as_written(features)
    return ", ".join(f"{name} {value:g}" for name, value in features.items()) or "any input"


def _caveats(found: Calibration, items: Sequence[Any]) -> list[str]:
    beyond = sum(map(found.is_extrapolated, items))
    told = []
    if beyond:
        told.append(
            f"{format_count(beyond, 'input')} beyond what was calibrated (up to {format_as_written(found.max_size_bytes)}): "
            "extrapolated"
        )
    return [*told, *found.file.caveats]
