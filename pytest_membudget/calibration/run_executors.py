"""Where the runs of a calibration are made, each in an interpreter of its own: on this machine, or on the hosts of a Dask cluster.

1. `run_fresh` makes one run: started, watched, and cleared away whatever happens.
2. `LocalRunExecutor` makes one after the other here; `DaskRunExecutor` sends them to hosts, one at a time on a host.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from pytest_membudget.calibration.plan import InputFolder, LeftS, PlannedRun, smallest
from pytest_membudget.calibration.worker import FunctionReference, Order, RunInput
from pytest_membudget.errors import CalibrationError
from pytest_membudget.measurement.fresh.launcher import Launched, launch
from pytest_membudget.measurement.system.machine import environment, memory_reading
from pytest_membudget.records.calibration import CalibrationRun
from pytest_membudget.records.measurement import Ending
from pytest_membudget.records.report import Environment
from pytest_membudget.records.storage import working_folder
from pytest_membudget.runtime.workers.protocol import CannotStartError, Died, Reply, Returned
from pytest_membudget.units import format_size

_WATCH_EVERY_S = 0.02
_MEMORY_SHARE = 0.9
"""A run that holds more than this share of what was available is ended, before the machine runs out."""

_ENDING_S = 10.0
"""How long an interpreter may take to end after its answer; a thread that the function left running may keep it."""

_LAST_WORDS_BYTES = 400


def run_fresh(
    function: FunctionReference,
    warm_up: Path | RunInput,
    input_file: Path | RunInput,
    folder: Path,
    *,
    begun: CalibrationRun | None = None,
    timeout_s: float | None = None,
    is_called_off: Callable[[], bool] = lambda: False,
) -> CalibrationRun:
    """Runs the function on `input_file` (a path, or another input) in a fresh interpreter, in an empty folder inside `folder`.

    The record is `begun` with what was found; failures of the function are in it. Nothing of the run is left: neither
    process nor file.
    """
    begun = begun or CalibrationRun()
    with _run_folder(folder) as (place, workplace):
        order_path, answer_path = place / "order.json", place / "answer.json"
        order = Order(
            run=begun,
            function=function,
            warm_up=_input(warm_up),
            input=_input(input_file),
            answer=str(answer_path),
        )
        order_path.write_bytes(msgspec.json.encode(order))
        ending, last_words = _run(place, timeout_s, is_called_off)
        if ending.ended_by_us or not answer_path.exists():
            return replace(begun, failed_at="run", error=_death(ending, last_words))
        done = msgspec.json.decode(answer_path.read_bytes(), type=CalibrationRun)
        written = sorted(path.name for path in workplace.iterdir())
        if written:
            caveat = f"it writes into its working directory ({', '.join(written[:3])}); that was an empty one, now removed"
            done = replace(done, caveats=(*done.caveats, caveat))
        return done


def _input(given: Path | RunInput) -> RunInput:
    return given if isinstance(given, RunInput) else RunInput(path=str(given))


def bare_interpreter_bytes() -> int:
    """Resident memory of an interpreter that has loaded nothing but what reads that figure."""
    if sys.platform == "linux":
        program = (
            "import os; print(int(open('/proc/self/statm').read().split()[1]) * os.sysconf('SC_PAGE_SIZE'))"
        )
    else:
        program = "from pytest_membudget.measurement.process.high_water import resident_bytes; print(resident_bytes())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return int(done.stdout)


@contextlib.contextmanager
def _run_folder(folder: Path) -> Iterator[tuple[Path, Path]]:
    place = Path(tempfile.mkdtemp(dir=folder))
    workplace = place / "work"
    workplace.mkdir()
    try:
        yield place, workplace
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _run(place: Path, timeout_s: float | None, is_called_off: Callable[[], bool]) -> tuple[Ending, str]:
    """Carries out the order in `place` with all that this starts; how it ended, and the last of its standard error."""
    package_parent = str(Path(__file__).resolve().parents[2])
    starter = (
        f"import sys; sys.path.insert(0, {package_parent!r}); "
        "from pytest_membudget.calibration.worker import main; sys.exit(main(sys.argv[1]))"
    )
    with (place / "errors.txt").open("w+b") as errors:
        with launch(
            [sys.executable, "-c", starter, str(place / "order.json")],
            cwd=place / "work",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            limit_bytes=max(1, int(_MEMORY_SHARE * memory_reading().available_bytes)),
            timeout_s=timeout_s,
        ) as worker:
            ending = _ending(worker, place / "answer.json", is_called_off)
        errors.seek(max(0, errors.seek(0, os.SEEK_END) - _LAST_WORDS_BYTES))
        return ending, errors.read().decode(errors="replace").strip()


def _ending(worker: Launched, answer_path: Path, is_called_off: Callable[[], bool]) -> Ending:
    while (ending := worker.poll(_WATCH_EVERY_S)) is None:
        if answer_path.exists():
            # A thread that the function left running may keep the interpreter from ending: that is no failure.
            return worker.poll(_ENDING_S) or Ending(how="exited")
        if is_called_off():
            return worker.cancel()
    return ending


def _death(ending: Ending, last_words: str) -> str:
    if ending.how == "over-limit":
        available = format_size((ending.limit_bytes or 0) / _MEMORY_SHARE)
        return f"its process {ending}: only {available} were available"
    detail = f": {last_words.splitlines()[-1]}" if last_words and ending.how == "exited" else ""
    return f"its process {ending}{detail}"


class LocalRunExecutor:
    """This machine: one run after the other, its file made just before and removed after it."""

    def __init__(
        self, function: FunctionReference, plan: Sequence[PlannedRun], kind: str, seed: int, folder: Path
    ) -> None:
        self._function = function
        self._folder = folder
        self._inputs = InputFolder(folder, plan, kind, seed)

    def finished(self, todo: Sequence[PlannedRun], left_s: LeftS) -> Generator[CalibrationRun, None, None]:
        """As the protocol says."""
        for run, given, size_bytes in self._inputs.inputs(todo):
            timeout_s = left_s()
            if timeout_s == 0:
                return
            yield run_fresh(
                self._function,
                self._inputs.warm_up,
                given,
                self._folder,
                begun=run.begun(size_bytes),
                timeout_s=timeout_s,
            )


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

    def finished(self, todo: Sequence[PlannedRun], left_s: LeftS) -> Generator[CalibrationRun, None, None]:
        """As the protocol says.

        Raises:
            CalibrationError: no scheduler answers, no worker can be used, or the cluster is gone.
            MissingExtraError: Dask is not installed here.
        """
        if not todo:
            return
        from pytest_membudget.runtime.cluster.launcher import HostPool

        with HostPool(self._cluster, _warn) as hosts:
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


def _read(run: PlannedRun, host: str, reply: Reply) -> CalibrationRun:
    """What came of the run; what went wrong around it names the host."""
    match reply:
        case Returned(value=CalibrationRun() as finished):
            return finished
        case Died(detail=detail):
            return replace(run.begun(run.size_bytes), failed_at="run", error=detail)
    error = getattr(reply, "error", reply)
    raise CalibrationError(f"a run could not be made on host {host}: {type(error).__name__}: {error}")


def _warn(cause: str, next_step: str) -> None:
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


def carry_out(order: RemoteOrder) -> CalibrationRun:
    """Does the run on this host. Nothing of it is left: neither process nor file."""
    with working_folder("calibration") as folder:
        try:
            warm_up = _placed(order.warm_up, order.own_files[0], folder / "warm-up")
            run = _placed(order.run, order.own_files[1], folder / "input")
        except MissingThereError as error:
            return replace(order.run.begun(0), failed_at="input", error=str(error))
        inputs = InputFolder(folder, [warm_up, run], order.kind, order.seed)
        (done,) = [
            run_fresh(
                _function(order, folder),
                inputs.warm_up,
                given,
                folder,
                begun=order.run.begun(size_bytes),
                timeout_s=order.timeout_s,
                is_called_off=lambda: order.token in _called_off,
            )
            for _, given, size_bytes in inputs.inputs([run])
        ]
    here, bare_bytes = _this_host()
    return replace(done, environment=here, bare_bytes=bare_bytes)


@functools.cache
def _this_host() -> tuple[Environment, int]:
    """This host, as far as it may change a figure, and the resident memory of a bare interpreter."""
    return replace(environment(), hosts=(platform.node(),)), bare_interpreter_bytes()


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
    return replace(run, path=_place(file, folder), size_bytes=file.size_bytes)


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
    return replace(order.function, script=str(script))
