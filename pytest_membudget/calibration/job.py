"""What is to be calibrated, and how the outcome of its runs is to be read."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import msgspec

from pytest_membudget.calibration.checkpoint import differing_hosts, environment_of
from pytest_membudget.calibration.checks import LEAST_POINTS
from pytest_membudget.calibration.fresh_run import bare_interpreter_bytes
from pytest_membudget.calibration.function_reference import FunctionReference
from pytest_membudget.calibration.model import Calibration
from pytest_membudget.calibration.places import Here, Place
from pytest_membudget.calibration.plan import PlannedRun
from pytest_membudget.calibration.points import complete
from pytest_membudget.errors import CalibrationError
from pytest_membudget.records.calibration import CalibrationFile, CalibrationPoint, CalibrationRun
from pytest_membudget.units import format_duration, format_size

_UNREAD_BYTES = 4096
_UNTOUCHED_BYTES = 256 * 1024
"""Fewer bytes read by system calls, and less memory taken (as for a mapped file), mean that an input was not read."""


class Assignment(NamedTuple):
    """A function, the runs that are planned of it, and what its bound is to promise."""

    function: FunctionReference
    kind: str
    seed: int
    plan: list[PlannedRun]
    content: float
    confidence: float
    budget_seconds: float | None
    cluster: Any

    def __str__(self) -> str:
        return f"{self.function} on {self.kind}"

    def digest(self) -> str:
        """The same text for the same plan."""
        where = [] if self.cluster is None else ["on a cluster"]
        text = msgspec.json.encode(
            [str(self.function), self.function.script, self.kind, self.seed, self.plan, *where]
        )
        return hashlib.sha256(text).hexdigest()

    def fit(self, runs: Sequence[CalibrationRun]) -> Calibration | None:
        """The calibration of these runs, `None` where they are too few."""
        if len(runs) < LEAST_POINTS:
            return None
        here_bytes = bare_interpreter_bytes()
        base_bytes = round(median(run.warm_bytes - (run.bare_bytes or here_bytes) for run in runs))
        return complete(
            CalibrationFile(
                points=tuple(CalibrationPoint(run.size_bytes, run.peak_bytes) for run in runs),
                durations_s=tuple(run.duration_s for run in runs),
                content=self.content,
                confidence=self.confidence,
                function=str(self.function),
                source_digest=runs[-1].source_digest,
                kind=self.kind,
                base_bytes=max(0, base_bytes),
                environment=environment_of(runs),
                created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                caveats=self._caveats(runs),
            )
        )

    def _caveats(self, runs: Sequence[CalibrationRun]) -> tuple[str, ...]:
        told = dict.fromkeys(caveat for run in runs for caveat in run.caveats)
        if len(runs) < len(self.plan):
            told[f"only {len(runs)} of {len(self.plan)} planned runs were measured"] = None
        return (*told, *differing_hosts(runs))

    def place(self, folder: Path) -> Place:
        """Where the runs are done."""
        if self.cluster is None:
            return Here(self.function, self.plan, self.kind, self.seed, folder)
        from pytest_membudget.calibration.cluster import OnCluster

        return OnCluster(self.cluster, self.function, self.plan, self.kind, self.seed)

    def judge(
        self, runs: Sequence[CalibrationRun], failures: Sequence[str], fitted: Calibration | None
    ) -> Calibration:
        """The calibration, if nothing stands in the way of one of the whole plan.

        Raises:
            CalibrationError: something does.
        """
        measured = f"{len(runs)} of {len(self.plan)} runs were measured"
        if failures:
            others = f", and {len(failures) - 1} more" if len(failures) > 1 else ""
            raise CalibrationError(f"{self} fails {failures[0]}{others}; {measured}", fitted)
        if fitted is None:
            raise CalibrationError(
                f"{self}: {measured} in {format_duration(self.budget_seconds or 0.0)}, and a fit needs "
                f"{LEAST_POINTS}; give it more time or smaller sizes"
            )
        if all(_left_unread(run) for run in runs):
            most = max(runs, key=lambda run: run.size_bytes)
            raise CalibrationError(
                f"{self} does not read its input: {format_size(most.read_bytes or 0)} of "
                f"{format_size(most.size_bytes)} were read and {format_size(most.peak_bytes)} taken; "
                "give a function that takes the path and does the whole work",
                fitted,
            )
        return fitted


def _left_unread(run: CalibrationRun) -> bool:
    return (
        run.read_bytes is not None
        and run.read_bytes < min(_UNREAD_BYTES, run.size_bytes)
        and run.peak_bytes < _UNTOUCHED_BYTES
    )
