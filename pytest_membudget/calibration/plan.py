"""The runs of a calibration, what an executor of them (`run_executors`) gives back, and the file that keeps those that are done.

Inputs are synthetic files made to order, the user's own files, or any items.
"""

from __future__ import annotations

import os
import pickle
import random
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec

from pytest_membudget.calibration.store import differences
from pytest_membudget.calibration.worker import RunInput
from pytest_membudget.errors import UsageError, text_of
from pytest_membudget.inputs import KINDS, synthesize
from pytest_membudget.records.calibration import CalibrationRun, CalibrationState
from pytest_membudget.records.report import Environment
from pytest_membudget.records.storage import encode_json, read_json, write_atomically
from pytest_membudget.runtime.prediction.predictors import BYTES, Predictors, input_size, size_of_item
from pytest_membudget.units import Size, format_count, parse_size, parse_size_range

WARM_UP_BYTES = 20_000
_LEAST_SIZES = 2
_LEAST_RUNS = 3
_SUFFIXES = {"text": "txt"}


class PlannedRun(msgspec.Struct, frozen=True, kw_only=True):
    """One run to come: the size, which repeat of it, and the file where it is the user's own."""

    size_bytes: int
    repeat: int
    path: str = ""
    #: Whether the function gets it as a `Path`; else as text.
    as_path: bool = False
    #: Another item than a path, pickled.
    item: bytes = b""
    #: Which of the given inputs it is, and its predictors.
    index: int = 0
    values: tuple[float, ...] = ()

    @property
    def input(self) -> RunInput | None:
        """What the function is called with; `None` where the file is still to be made."""
        if not self.path and not self.item:
            return None
        return RunInput(path=self.path, as_path=self.as_path, pickled=self.item)

    def begun(self, size_bytes: int) -> CalibrationRun:
        """The record of this run on an input of that size, with nothing found so far."""
        return CalibrationRun(
            asked_bytes=self.size_bytes,
            repeat=self.repeat,
            path=self.path,
            index=self.index,
            values=self.values,
            size_bytes=size_bytes,
        )


def plan_synthetic(sizes: str | Sequence[Size], repeats: int, kind: str, seed: int) -> list[PlannedRun]:
    """Every size `repeats` times, in rounds of all sizes, each round shuffled.

    Rounds keep a calibration that is stopped early balanced; shuffling keeps what drifts on the machine from looking
    like growth with size.

    Raises:
        UsageError: fewer than two sizes, fewer than three runs, or an unknown kind.
        ValueError: a size that cannot be read.
    """
    if kind not in KINDS:
        raise UsageError(f"{kind!r} is not a kind of synthetic file; the kinds are {', '.join(KINDS)}")
    wanted = parse_size_range(sizes) if isinstance(sizes, str) else tuple(parse_size(size) for size in sizes)
    distinct = sorted(set(wanted))
    if len(distinct) < _LEAST_SIZES or distinct[0] == 0:
        raise UsageError(
            f'sizes={sizes!r} holds no two different sizes above 0; write "1MB..8MB" to separate growth from overhead'
        )
    if repeats < 1 or repeats * len(distinct) < _LEAST_RUNS:
        raise UsageError(f"{len(distinct)} sizes × {repeats} repeats are fewer than 3 runs; raise repeats")
    source = random.Random(seed)
    return [
        PlannedRun(size_bytes=size, repeat=repeat)
        for repeat in range(repeats)
        for size in source.sample(distinct, len(distinct))
    ]


def plan_inputs(
    inputs: Sequence[Any], repeats: int, seed: int, predictors: Predictors | None
) -> list[PlannedRun]:
    """Every input `repeats` times, likewise. Relative paths are made absolute: each run has a folder of its own.

    Raises:
        UsageError: fewer than three runs, inputs that do not differ, or a predictor that fails.
    """
    given = [_absolute(item) for item in inputs]
    values = [tuple(predictors.values(item).values()) if predictors else () for item in given]
    sizes = [
        _size_of(item, predictors, named) if predictors else size_of_item(item)
        for item, named in zip(given, values, strict=True)
    ]
    if repeats < 1 or repeats * len(given) < _LEAST_RUNS:
        raise UsageError(
            f"{format_count(len(given), 'input')}, {_often(repeats)}, are fewer than {_LEAST_RUNS} runs; give more"
        )
    if len(set(values if predictors else sizes)) < _LEAST_SIZES:
        same = "the same predictors" if predictors else "one size"
        raise UsageError(
            f"{format_count(len(given), 'input')} of {same} show nothing of growth; give inputs that differ"
        )
    inputs_by_index = [
        PlannedRun(size_bytes=size, repeat=0, index=index, values=named, **_carried(item))
        for index, (item, size, named) in enumerate(zip(given, sizes, values, strict=True))
    ]
    source = random.Random(seed)
    return [
        msgspec.structs.replace(run, repeat=repeat)
        for repeat in range(repeats)
        for run in source.sample(inputs_by_index, len(inputs_by_index))
    ]


def _often(repeats: int) -> str:
    return "run once each" if repeats == 1 else f"run {repeats} times each"


def smallest(plan: Sequence[PlannedRun]) -> PlannedRun:
    """The run of the smallest input, to warm up on."""
    return min(plan, key=lambda run: (run.size_bytes, run.values))


def _size_of(item: Any, predictors: Predictors, values: tuple[float, ...]) -> int:
    """The size in bytes; where the item is in no file what a predictor of that name says, else 0."""
    size = input_size(item)
    named = dict(zip(predictors.names, values, strict=True)).get(BYTES)
    if named is None:
        return 0 if size is None else size.bytes
    if size is not None and round(named) != size.bytes:
        raise UsageError(
            f"the predictor {BYTES!r} of {item!r} is {named:,.10g}, and its size is {size.bytes:,}; give the predictor another name"
        )
    return round(named)


def _carried(item: Any) -> dict[str, Any]:
    """How an input gets to a fresh process: as its path, or pickled."""
    if isinstance(item, str | os.PathLike):
        return {"path": os.fspath(item), "as_path": isinstance(item, os.PathLike)}
    try:
        return {"item": pickle.dumps(item)}
    except Exception as error:  # whatever the user's own object raises
        raise UsageError(
            f"the input {item!r} cannot be given to a fresh process: {type(error).__name__}: {text_of(error)}"
        ) from error


def _absolute(item: Any) -> Any:
    """The item with the paths in it made absolute, where there is something of that name."""
    match item:
        case str() if item and Path(item).exists():
            return str(Path(item).resolve())
        case os.PathLike():
            return Path(item).resolve()
        case tuple() if type(item) is tuple:
            return tuple(map(_absolute, item))
        case list():
            return list(map(_absolute, item))
        case dict():
            return {key: _absolute(value) for key, value in item.items()}
    return item


class InputFolder:
    """Makes each planned file when its turn comes and removes it afterwards, so that one is on the disk at a time."""

    def __init__(self, folder: Path, plan: Sequence[PlannedRun], kind: str, seed: int) -> None:
        self._folder, self._kind, self._seed = folder, kind, seed
        self.warm_up = smallest(plan).input or _file(self._make("warm-up", WARM_UP_BYTES, seed))

    def inputs(self, plan: Sequence[PlannedRun]) -> Iterator[tuple[PlannedRun, RunInput, int]]:
        """Each run with its input and that one's exact size; each repeat of a synthetic file has content of its own."""
        for run in plan:
            if run.input is not None:
                yield run, run.input, run.size_bytes
                continue
            path = self._make("input", run.size_bytes, self._seed + 1 + run.repeat)
            try:
                yield run, _file(path), path.stat().st_size
            finally:
                path.unlink(missing_ok=True)

    def _make(self, stem: str, size_bytes: int, seed: int) -> Path:
        path = self._folder / f"{stem}.{_SUFFIXES.get(self._kind, self._kind)}"
        return synthesize(path, size_bytes, self._kind, seed).path


def _file(path: Path) -> RunInput:
    return RunInput(path=str(path))


LeftS = Callable[[], float | None]
"""Seconds that are left; `None` where time is not limited."""


class RunExecutor(Protocol):
    """Does runs."""

    def finished(self, todo: Sequence[PlannedRun], left_s: LeftS) -> Generator[CalibrationRun, None, None]:
        """Does the runs in fresh interpreters, yields each when it is done, and starts none when no time is left."""


class Checkpoint:
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
        """Whether that one is done."""
        return any(
            (done.asked_bytes, done.repeat, done.path, done.index)
            == (run.size_bytes, run.repeat, run.path, run.index)
            for done in self.runs
        )

    def add(self, finished: CalibrationRun) -> None:
        """Keeps one more."""
        self.runs.append(finished)
        if self._path is not None:
            write_atomically(
                self._path, encode_json(CalibrationState(plan=self._plan, runs=tuple(self.runs)))
            )

    def remove(self) -> None:
        """Removes the file: the calibration is complete."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)


def environment_of(runs: Sequence[CalibrationRun]) -> Environment:
    """That of the hosts where the runs were made, or of this machine."""
    from pytest_membudget.measurement.system.machine import environment

    elsewhere = _hosts(runs)
    if not elsewhere:
        return environment()
    return msgspec.structs.replace(next(iter(elsewhere.values())), hosts=tuple(sorted(elsewhere)))


def differing_hosts(runs: Sequence[CalibrationRun]) -> Iterator[str]:
    """How each host differs from the first where that may change a figure."""
    hosts = list(_hosts(runs).items())
    for host, environment in hosts[1:]:
        first, theirs = hosts[0]
        for what, there, here in differences(theirs, environment):
            yield f"hosts differ: {what} is {there!r} on {first} and {here!r} on {host}"


def _hosts(runs: Sequence[CalibrationRun]) -> dict[str, Environment]:
    return {run.host: run.environment for run in runs if run.environment}


def progress_bar(total: int, title: str, unit: str, is_wanted: bool | None) -> Any:
    """A progress bar of tqdm's on standard error; by default (`None`) where that is a terminal."""
    from tqdm import tqdm

    disable = None if is_wanted is None else not is_wanted
    return tqdm(total=total, desc=title, unit=unit, disable=disable, leave=False)
