"""One run on a host of a cluster: what travels there, and what is done there.

`order_for` packs where the calibration was begun; `carry_out` works on the host, in one of its worker's threads.
"""

from __future__ import annotations

import functools
import platform
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from pytest_membudget.calibration.fresh_run import bare_interpreter_bytes, run_fresh
from pytest_membudget.calibration.function_reference import FunctionReference
from pytest_membudget.calibration.places import Finished, Machine
from pytest_membudget.calibration.plan import InputFolder, PlannedRun
from pytest_membudget.calibration.worker import Answer
from pytest_membudget.measurement.system.fingerprint import environment
from pytest_membudget.units import format_size

SENT_UP_TO_BYTES = 1_000_000
"""Own files up to this size travel; larger ones must be found on the host under the same path."""


class OwnFile(msgspec.Struct, frozen=True):
    """A file of the user's: where it is, how large, and its content where it is small."""

    path: str
    size_bytes: int
    body: bytes | None


class RemoteOrder(msgspec.Struct, frozen=True, kw_only=True):
    """One run to do elsewhere. `own_files` are the one to warm up on and the one to measure, or none."""

    token: str
    function: FunctionReference
    script: bytes
    run: PlannedRun
    kind: str
    seed: int
    own_files: tuple[OwnFile, ...]
    timeout_s: float | None


class MissingThereError(Exception):
    """A file is not where it is on the machine where the calibration began."""


_called_off: set[str] = set()


def order_for(
    token: str,
    function: FunctionReference,
    run: PlannedRun,
    warm_up: str,
    *,
    kind: str,
    seed: int,
    timeout_s: float | None,
) -> RemoteOrder:
    """The order of `run`; its script, and its own files where they are small, come along.

    Raises:
        OSError: one of them cannot be read here.
    """
    return RemoteOrder(
        token=token,
        function=function,
        script=Path(function.script).read_bytes() if function.script else b"",
        run=run,
        kind=kind,
        seed=seed,
        own_files=(_packed(warm_up), _packed(run.path)) if run.path else (),
        timeout_s=timeout_s,
    )


def call_off(token: str) -> None:
    """Ends what runs in this process for that calibration; called beside it, in another thread."""
    _called_off.add(token)


def carry_out(order: RemoteOrder) -> Finished:
    """Does the run on this host. Nothing of it is left: neither process nor file."""
    with tempfile.TemporaryDirectory(prefix="membudget-calibrate-") as name:
        folder = Path(name)
        try:
            run, warm_up = _placed(order.run, order.own_files, folder)
        except MissingThereError as error:
            return Finished(order.run, 0, Answer(failed_at="input", error=str(error)), this_machine())
        inputs = InputFolder(folder, [warm_up, run], order.kind, order.seed)
        (done,) = [
            (
                size_bytes,
                run_fresh(
                    _function(order, folder),
                    inputs.warm_up,
                    path,
                    folder,
                    timeout_s=order.timeout_s,
                    is_called_off=lambda: order.token in _called_off,
                ),
            )
            for _, path, size_bytes in inputs.files([run])
        ]
    return Finished(order.run, *done, this_machine())


@functools.cache
def this_machine() -> Machine:
    """This host, as far as it may change a figure."""
    return Machine(platform.node(), environment(), bare_interpreter_bytes())


def _packed(path: str) -> OwnFile:
    size_bytes = Path(path).stat().st_size
    body = Path(path).read_bytes() if size_bytes <= SENT_UP_TO_BYTES else None
    return OwnFile(path, size_bytes, body)


def _placed(run: PlannedRun, own_files: Sequence[OwnFile], folder: Path) -> tuple[PlannedRun, PlannedRun]:
    """The run and its warm-up with the paths that hold here."""
    if not own_files:
        return run, run
    warm_up, own = (
        msgspec.structs.replace(run, path=_place(file, folder / what), size_bytes=file.size_bytes)
        for file, what in zip(own_files, ("warm-up", "input"), strict=True)
    )
    return own, warm_up


def _place(file: OwnFile, folder: Path) -> str:
    if file.body is not None:
        folder.mkdir()
        copy = folder / Path(file.path).name
        copy.write_bytes(file.body)
        return str(copy)
    if not Path(file.path).is_file() or Path(file.path).stat().st_size != file.size_bytes:
        raise MissingThereError(
            f"{file.path} ({format_size(file.size_bytes)} where the calibration began) is not found on host "
            f"{platform.node()}; share its folder with that host under the same path, or give files of at most "
            f"{format_size(SENT_UP_TO_BYTES)}, which are sent along"
        )
    return file.path


def _function(order: RemoteOrder, folder: Path) -> FunctionReference:
    """The function; its script, which may be missing here, as it was where the calibration began."""
    if not order.script:
        return order.function
    script = folder / "script" / Path(order.function.script).name
    script.parent.mkdir()
    script.write_bytes(order.script)
    return msgspec.structs.replace(order.function, script=str(script))
