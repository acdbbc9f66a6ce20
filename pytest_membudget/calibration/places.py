"""Where the runs of a calibration are done: the protocol, and the answer for this machine."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from pytest_membudget.calibration.fresh_run import run_fresh
from pytest_membudget.calibration.function_reference import FunctionReference
from pytest_membudget.calibration.plan import InputFolder, PlannedRun
from pytest_membudget.calibration.worker import Answer
from pytest_membudget.records.report import Environment

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


class Place(Protocol):
    """Does runs."""

    def finished(self, todo: Sequence[PlannedRun], left_s: LeftS) -> Generator[Finished, None, None]:
        """Does the runs in fresh interpreters, yields each when it is done, and starts none when no time is left."""


class Here:
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
