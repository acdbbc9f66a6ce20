"""Calibrates a function: runs it on files of several sizes, each run in a fresh interpreter, and fits what it took."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import msgspec

from pytest_membudget.calibration.fresh_run import bare_interpreter_bytes, run_fresh
from pytest_membudget.calibration.inputs_plan import (
    InputFolder,
    PlannedRun,
    plan_own_files,
    plan_synthetic,
)
from pytest_membudget.calibration.model import LEAST_POINTS, Calibration, checked_share, complete
from pytest_membudget.calibration.reference import FunctionReference, refer_to, stop_if_loading
from pytest_membudget.calibration.worker import Answer
from pytest_membudget.errors import CalibrationError, UsageError
from pytest_membudget.records.calibration import (
    CalibrationFile,
    CalibrationPoint,
    CalibrationRun,
    CalibrationState,
)
from pytest_membudget.records.storage import encode_json, read_json, write_atomically
from pytest_membudget.units import Size, format_duration, format_size

_UNREAD_BYTES = 4096
_UNTOUCHED_BYTES = 256 * 1024
"""Fewer bytes read by system calls, and less memory taken (as for a mapped file), mean that an input was not read."""


def calibrate(  # noqa: PLR0917 - published in this order
    fn: Callable[..., Any] | FunctionReference,
    kind: str = "csv",
    sizes: str | Sequence[Size] = ("1 MB", "2 MB", "4 MB", "8 MB"),
    repeats: int = 3,
    content: float | str = 0.95,
    confidence: float | str = 0.95,
    *,
    files: Sequence[str | os.PathLike[str]] = (),
    seed: int = 0,
    budget_seconds: float | None = None,
    state: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
) -> Calibration:
    """Calibrates `fn(path)`: what one task adds to a worker that is warm, as γ, overhead and a bound.

    Args:
        fn: a function of a module or of the script being run; it takes the path of its input.
        kind: of the synthetic files; see `synthesize`.
        sizes: of the synthetic files: a sequence, or a range such as "1MB..16MB".
        repeats: runs of each size, with other content each time.
        content: the share of tasks that the bound is to cover.
        confidence: how sure that is to be.
        files: the user's own files instead of synthetic ones.
        seed: of the order of runs and of the files' content.
        budget_seconds: no run starts or goes on after this; what was measured by then is fitted.
        state: a file that keeps finished runs, so that a calibration that was stopped goes on from there. It is
            removed at the end.
        progress: a progress bar; by default where standard error is a terminal.

    Raises:
        UsageError: `fn` cannot be found by a fresh interpreter, or the sizes make no sense.
        CalibrationError: `fn` fails, does not read its input, or too few runs were done; its `partial` is what the
            runs before gave, where that is enough for a fit.
        OSError: no room for the files.
    """
    stop_if_loading()
    function = fn if isinstance(fn, FunctionReference) else refer_to(fn)
    plan = plan_own_files(files, repeats, seed) if files else plan_synthetic(sizes, repeats, kind, seed)
    campaign = _Campaign(
        function=function,
        kind="own files" if files else kind,
        seed=seed,
        plan=plan,
        content=checked_share("content", content),
        confidence=checked_share("confidence", confidence),
        budget_seconds=budget_seconds,
    )
    kept = _Kept(state, campaign.digest())
    failures = _run_all(campaign, kept, progress)
    fitted = campaign.judge(kept.runs, failures, campaign.fit(kept.runs))
    if len(kept.runs) == len(plan):
        kept.remove()
    return fitted


class _Kept:
    """The finished runs, in a file as well where one was named."""

    def __init__(self, path: str | os.PathLike[str] | None, plan: str) -> None:
        self._path = None if path is None else Path(path)
        self._plan = plan
        self.runs: list[CalibrationRun] = []
        if self._path is not None and self._path.exists():
            before = read_json(self._path, CalibrationState, what="the state of a calibration")
            if before.plan != plan:
                raise UsageError(
                    f"{self._path} belongs to a calibration of another function, sizes or seed; "
                    "remove it or name another file"
                )
            self.runs = list(before.runs)

    def has(self, run: PlannedRun) -> bool:
        return any(
            (done.asked_bytes, done.repeat, done.path) == (run.size_bytes, run.repeat, run.path)
            for done in self.runs
        )

    def add(self, run: PlannedRun, size_bytes: int, answer: Answer) -> None:
        self.runs.append(
            CalibrationRun(
                asked_bytes=run.size_bytes,
                repeat=run.repeat,
                path=run.path,
                size_bytes=size_bytes,
                peak_bytes=answer.peak_bytes,
                warm_bytes=answer.warm_bytes,
                duration_s=answer.duration_s,
                read_bytes=answer.read_bytes,
                source_digest=answer.digest,
                caveats=answer.caveats,
            )
        )
        if self._path is not None:
            write_atomically(
                self._path, encode_json(CalibrationState(plan=self._plan, runs=tuple(self.runs)))
            )

    def remove(self) -> None:
        if self._path is not None:
            self._path.unlink(missing_ok=True)


class _Campaign(NamedTuple):
    """What is to be done, and how its outcome is to be read."""

    function: FunctionReference
    kind: str
    seed: int
    plan: list[PlannedRun]
    content: float
    confidence: float
    budget_seconds: float | None

    def __str__(self) -> str:
        return f"{self.function} on {self.kind}"

    def digest(self) -> str:
        """The same text for the same plan."""
        text = msgspec.json.encode(
            [str(self.function), self.function.script, self.kind, self.seed, self.plan]
        )
        return hashlib.sha256(text).hexdigest()

    def fit(self, runs: Sequence[CalibrationRun]) -> Calibration | None:
        """The calibration of these runs, `None` where they are too few."""
        if len(runs) < LEAST_POINTS:
            return None
        from pytest_membudget.measurement import environment

        base_bytes = round(median(run.warm_bytes for run in runs)) - bare_interpreter_bytes()
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
                environment=environment(),
                created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                caveats=self._caveats(runs),
            )
        )

    def _caveats(self, runs: Sequence[CalibrationRun]) -> tuple[str, ...]:
        told = dict.fromkeys(caveat for run in runs for caveat in run.caveats)
        if len(runs) < len(self.plan):
            told[f"only {len(runs)} of {len(self.plan)} planned runs were measured"] = None
        return tuple(told)

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


def _run_all(campaign: _Campaign, kept: _Kept, progress: bool | None) -> list[str]:
    """Does the runs that are still to be done; what failed, in words."""
    failures: list[str] = []
    started_s = time.monotonic()
    todo = [run for run in campaign.plan if not kept.has(run)]
    with tempfile.TemporaryDirectory(prefix="membudget-calibrate-") as name, _bar(todo, progress) as bar:
        inputs = InputFolder(Path(name), campaign.plan, campaign.kind, campaign.seed)
        for run, path, size_bytes in inputs.files(todo):
            if _is_over(campaign.budget_seconds, started_s):
                break
            left_s = _left_s(campaign.budget_seconds, started_s)
            bar.set_postfix_str(format_size(size_bytes))
            answer = run_fresh(campaign.function, inputs.warm_up, path, Path(name), timeout_s=left_s)
            bar.update(1)
            if answer.failed_at in {"import", "warm-up"}:
                raise CalibrationError(
                    _stillborn(campaign.function, answer), not_importable=answer.failed_at == "import"
                )
            if not answer.failed_at:
                kept.add(run, size_bytes, answer)
            elif _is_over(campaign.budget_seconds, started_s):
                break
            else:
                failures.append(f"at {format_size(size_bytes)}: {answer.error}")
    return failures


def _left_s(budget_seconds: float | None, started_s: float) -> float | None:
    return None if budget_seconds is None else max(0.0, budget_seconds - (time.monotonic() - started_s))


def _is_over(budget_seconds: float | None, started_s: float) -> bool:
    return _left_s(budget_seconds, started_s) == 0


def _left_unread(run: CalibrationRun) -> bool:
    return (
        run.read_bytes is not None
        and run.read_bytes < min(_UNREAD_BYTES, run.size_bytes)
        and run.peak_bytes < _UNTOUCHED_BYTES
    )


def _stillborn(function: FunctionReference, answer: Answer) -> str:
    if answer.failed_at == "import":
        return f"{function} cannot be imported by a fresh interpreter: {answer.error}"
    return (
        f"{function} fails on a small file already: {answer.error} (it is called with the path of its input, "
        "in an empty working directory)"
    )


@contextlib.contextmanager
def _bar(plan: Sequence[PlannedRun], progress: bool | None) -> Iterator[Any]:
    from tqdm import tqdm

    disable = None if progress is None else not progress
    with tqdm(total=len(plan), desc="calibrating", unit="run", disable=disable, leave=False) as bar:
        yield bar
