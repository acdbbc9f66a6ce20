"""The runs of a calibration: on which inputs (synthetic files made to order, or the user's own), and who executes them."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec

from pytest_membudget.calibration.fresh_run import run_fresh
from pytest_membudget.calibration.function_reference import FunctionReference
from pytest_membudget.calibration.worker import Answer
from pytest_membudget.errors import UsageError
from pytest_membudget.inputs import KINDS, synthesize
from pytest_membudget.records.report import Environment
from pytest_membudget.units import Size, format_count, parse_size, parse_size_range

WARM_UP_BYTES = 20_000
_LEAST_SIZES = 2
_SUFFIXES = {"text": "txt"}


class PlannedRun(msgspec.Struct, frozen=True, kw_only=True):
    """One run to come: the size, which repeat of it, and the file where it is the user's own."""

    size_bytes: int
    repeat: int
    path: str = ""


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
            f'sizes={sizes!r} holds no two different sizes above 0; write "1MB..8MB" to tell growth from overhead'
        )
    if repeats < 1 or repeats * len(distinct) < 3:
        raise UsageError(f"{len(distinct)} sizes × {repeats} repeats are fewer than 3 runs; raise repeats")
    source = random.Random(seed)
    return [
        PlannedRun(size_bytes=size, repeat=repeat)
        for repeat in range(repeats)
        for size in source.sample(distinct, len(distinct))
    ]


def plan_own_files(files: Sequence[str | os.PathLike[str]], repeats: int, seed: int) -> list[PlannedRun]:
    """Every file `repeats` times, likewise.

    Raises:
        FileNotFoundError: a file is missing.
        UsageError: fewer than three runs, or all files of one size.
    """
    paths = [Path(file).resolve() for file in files]
    sizes = {path: path.stat().st_size for path in paths}
    if len(set(sizes.values())) < _LEAST_SIZES or repeats < 1 or repeats * len(paths) < 3:
        raise UsageError(
            f"{format_count(len(paths), 'file')} of {format_count(len(set(sizes.values())), 'size')}, {repeats} times each, tell nothing of growth; "
            "give at least two sizes and three runs"
        )
    source = random.Random(seed)
    return [
        PlannedRun(size_bytes=sizes[path], repeat=repeat, path=str(path))
        for repeat in range(repeats)
        for path in source.sample(paths, len(paths))
    ]


class InputFolder:
    """Makes each planned file when its turn comes and removes it afterwards, so that one is on the disk at a time."""

    def __init__(self, folder: Path, plan: Sequence[PlannedRun], kind: str, seed: int) -> None:
        self._folder, self._kind, self._seed = folder, kind, seed
        own = min(plan, key=lambda run: run.size_bytes)
        self.warm_up = Path(own.path) if own.path else self._make("warm-up", WARM_UP_BYTES, seed)

    def files(self, plan: Sequence[PlannedRun]) -> Iterator[tuple[PlannedRun, Path, int]]:
        """Each run with its file and that file's exact size; each repeat has content of its own."""
        for run in plan:
            if run.path:
                yield run, Path(run.path), run.size_bytes
                continue
            path = self._make("input", run.size_bytes, self._seed + 1 + run.repeat)
            try:
                yield run, path, path.stat().st_size
            finally:
                path.unlink(missing_ok=True)

    def _make(self, stem: str, size_bytes: int, seed: int) -> Path:
        path = self._folder / f"{stem}.{_SUFFIXES.get(self._kind, self._kind)}"
        return synthesize(path, size_bytes, self._kind, seed).path


LeftS = Callable[[], float | None]
"""Seconds that are left; `None` where time is not limited."""


class Machine(NamedTuple):
    """A host of a cluster: its name, what may change a figure there, and a bare interpreter's resident memory."""

    host: str
    environment: Environment
    bare_bytes: int


class Finished(NamedTuple):
    """One run: what it ran on, what came of it, and the machine, `None` for this one."""

    run: PlannedRun
    size_bytes: int
    answer: Answer
    machine: Machine | None = None


class RunExecutor(Protocol):
    """Does runs."""

    def finished(self, todo: Sequence[PlannedRun], left_s: LeftS) -> Generator[Finished, None, None]:
        """Does the runs in fresh interpreters, yields each when it is done, and starts none when no time is left."""


class LocalRunExecutor:
    """This machine: one run after the other, its file made just before and removed after it."""

    def __init__(
        self, function: FunctionReference, plan: Sequence[PlannedRun], kind: str, seed: int, folder: Path
    ) -> None:
        self._function = function
        self._folder = folder
        self._inputs = InputFolder(folder, plan, kind, seed)

    def finished(self, todo: Sequence[PlannedRun], left_s: LeftS) -> Generator[Finished, None, None]:
        """As the protocol says."""
        for run, path, size_bytes in self._inputs.files(todo):
            timeout_s = left_s()
            if timeout_s == 0:
                return
            answer = run_fresh(self._function, self._inputs.warm_up, path, self._folder, timeout_s=timeout_s)
            yield Finished(run, size_bytes, answer)
