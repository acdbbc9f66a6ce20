"""The runs of a calibration that are done, and what they say of where they were made."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from pytest_membudget.calibration.plan import Finished, Machine, PlannedRun
from pytest_membudget.calibration.store import differences
from pytest_membudget.errors import UsageError
from pytest_membudget.records.calibration import CalibrationRun, CalibrationState
from pytest_membudget.records.report import Environment
from pytest_membudget.records.storage import encode_json, read_json, write_atomically


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

    def add(self, finished: Finished) -> None:
        """Keeps one more."""
        run, size_bytes, answer, machine = finished
        self.runs.append(
            CalibrationRun(
                asked_bytes=run.size_bytes,
                repeat=run.repeat,
                path=run.path,
                index=run.index,
                values=run.values,
                size_bytes=size_bytes,
                peak_bytes=answer.peak_bytes,
                first_peak_bytes=answer.first_peak_bytes,
                warm_bytes=answer.warm_bytes,
                duration_s=answer.duration_s,
                read_bytes=answer.read_bytes,
                source_digest=answer.digest,
                caveats=answer.caveats,
                environment=_environment_of(machine),
                bare_bytes=machine.bare_bytes if machine else 0,
            )
        )
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
    from pytest_membudget.measurement.system.fingerprint import environment

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
    return {run.environment.hosts[0]: run.environment for run in runs if run.environment}


def _environment_of(machine: Machine | None) -> Environment | None:
    return machine and msgspec.structs.replace(machine.environment, hosts=(machine.host,))
