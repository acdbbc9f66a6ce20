"""The runs of a calibration on the hosts of a Dask cluster: each in a fresh interpreter there, one at a time on a host."""

from __future__ import annotations

import functools
import logging
import platform
import tempfile
import uuid
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from pytest_membudget.calibration.fresh_run import bare_interpreter_bytes, run_fresh
from pytest_membudget.calibration.plan import Finished, InputFolder, LeftS, Machine, PlannedRun, smallest
from pytest_membudget.calibration.worker import Answer, FunctionReference
from pytest_membudget.errors import CalibrationError
from pytest_membudget.measurement.system.machine import environment
from pytest_membudget.runtime.cluster.launcher import HostPool
from pytest_membudget.runtime.workers.protocol import CannotStartError, Died, Reply, Returned
from pytest_membudget.units import format_size

_logger = logging.getLogger("pytest_membudget.calibration")


class DaskRunExecutor:
    """A Dask cluster, by its scheduler's address, a scheduler file or a `distributed.Client`."""

    def __init__(
        self, cluster: Any, function: FunctionReference, plan: Sequence[PlannedRun], kind: str, seed: int
    ) -> None:
        self._cluster = cluster
        self._function = function
        self._warm_up = smallest(plan)
        self._kind = kind
        self._seed = seed
        self._token = uuid.uuid4().hex

    def finished(self, todo: Sequence[PlannedRun], left_s: LeftS) -> Generator[Finished, None, None]:
        """As the protocol says.

        Raises:
            CalibrationError: no scheduler answers, no worker can be used, or the cluster is gone.
            MissingExtraError: Dask is not installed here.
        """
        if not todo:
            return
        with HostPool(self._cluster, _tell) as hosts:
            try:
                for item, host, reply in hosts.spread(carry_out, self._orders(todo, left_s)):
                    yield _read(item.run, host, reply)
            except CannotStartError as error:
                raise CalibrationError(f"the cluster cannot be used: {error}") from None
            finally:
                hosts.cancel(call_off, self._token)

    def _orders(self, todo: Sequence[PlannedRun], left_s: LeftS) -> Iterator[RemoteOrder]:
        for run in todo:
            timeout_s = left_s()
            if timeout_s == 0:
                return
            yield order_for(
                self._token,
                self._function,
                run,
                self._warm_up,
                kind=self._kind,
                seed=self._seed,
                timeout_s=timeout_s,
            )


def _read(run: PlannedRun, host: str, reply: Reply) -> Finished:
    """What came of the run; what went wrong around it names the host."""
    match reply:
        case Returned(value=Finished() as finished):
            return finished
        case Died(detail=detail):
            return Finished(run, run.size_bytes, Answer(failed_at="run", error=detail))
    error = getattr(reply, "error", reply)
    raise CalibrationError(f"a run could not be made on host {host}: {type(error).__name__}: {error}")


def _tell(cause: str, next_step: str) -> None:
    _logger.warning("%s; %s", cause, next_step)


SENT_UP_TO_BYTES = 1_000_000
"""Own files up to this size travel; larger ones must be found on the host under the same path."""


class OwnFile(msgspec.Struct, frozen=True):
    """A file of the user's: where it is, how large, and its content where it is small."""

    path: str
    size_bytes: int
    body: bytes | None


class RemoteOrder(msgspec.Struct, frozen=True, kw_only=True):
    """One run to do elsewhere. `own_files` are the one to warm up on and the one to measure; `None` for no file."""

    token: str
    function: FunctionReference
    script: bytes
    warm_up: PlannedRun
    run: PlannedRun
    kind: str
    seed: int
    own_files: tuple[OwnFile | None, OwnFile | None]
    timeout_s: float | None


class MissingThereError(Exception):
    """A file is not where it is on the machine where the calibration began."""


_called_off: set[str] = set()


def order_for(
    token: str,
    function: FunctionReference,
    run: PlannedRun,
    warm_up: PlannedRun,
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
        warm_up=warm_up,
        run=run,
        kind=kind,
        seed=seed,
        own_files=(_packed(warm_up), _packed(run)),
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
            warm_up = _placed(order.warm_up, order.own_files[0], folder / "warm-up")
            run = _placed(order.run, order.own_files[1], folder / "input")
        except MissingThereError as error:
            return Finished(order.run, 0, Answer(failed_at="input", error=str(error)), this_machine())
        inputs = InputFolder(folder, [warm_up, run], order.kind, order.seed)
        (done,) = [
            (
                size_bytes,
                run_fresh(
                    _function(order, folder),
                    inputs.warm_up,
                    given,
                    folder,
                    timeout_s=order.timeout_s,
                    is_called_off=lambda: order.token in _called_off,
                ),
            )
            for _, given, size_bytes in inputs.inputs([run])
        ]
    return Finished(order.run, *done, this_machine())


@functools.cache
def this_machine() -> Machine:
    """This host, as far as it may change a figure."""
    return Machine(platform.node(), environment(), bare_interpreter_bytes())


def _packed(run: PlannedRun) -> OwnFile | None:
    if not run.path or Path(run.path).is_dir():  # a folder has to be there under the same path
        return None
    size_bytes = Path(run.path).stat().st_size
    body = Path(run.path).read_bytes() if size_bytes <= SENT_UP_TO_BYTES else None
    return OwnFile(run.path, size_bytes, body)


def _placed(run: PlannedRun, file: OwnFile | None, folder: Path) -> PlannedRun:
    """The run with the path that holds here."""
    if file is None:
        return run
    return msgspec.structs.replace(run, path=_place(file, folder), size_bytes=file.size_bytes)


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
