"""One run in an interpreter of its own: started, watched, and cleared away whatever happens."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import msgspec

from pytest_membudget.calibration.function_reference import FunctionReference
from pytest_membudget.calibration.worker import Answer, Order
from pytest_membudget.measurement.process.high_water import tree_resident_bytes
from pytest_membudget.measurement.system.limit import memory_reading
from pytest_membudget.units import format_duration, format_size

_WATCH_EVERY_S = 0.02
_MEMORY_SHARE = 0.9
"""A run that holds more than this share of what was available is ended, before the machine runs out."""

_ENDING_S = 10.0
"""How long an interpreter may take to end after its answer; a thread that the function left running may keep it."""

_LAST_WORDS_BYTES = 400


def run_fresh(
    function: FunctionReference,
    warm_up: Path,
    input_file: Path,
    folder: Path,
    *,
    timeout_s: float | None = None,
    is_called_off: Callable[[], bool] = lambda: False,
) -> Answer:
    """Runs the function on `input_file` in a fresh interpreter, in an empty folder inside `folder`.

    Failures of the function are in the answer. Nothing of the run is left: neither process nor file.
    """
    with _run_folder(folder) as (place, workplace):
        order_path, answer_path = place / "order.json", place / "answer.json"
        order = Order(function=function, warm_up=str(warm_up), input=str(input_file), answer=str(answer_path))
        order_path.write_bytes(msgspec.json.encode(order))
        available_bytes = memory_reading().available_bytes
        with (place / "errors.txt").open("w+b") as errors, _process(order_path, workplace, errors) as process:
            ended = _watch(process, answer_path, timeout_s, _MEMORY_SHARE * available_bytes, is_called_off)
            code = process.wait()
            errors.seek(max(0, errors.seek(0, os.SEEK_END) - _LAST_WORDS_BYTES))
            last_words = errors.read().decode(errors="replace").strip()
        if ended:
            return Answer(failed_at="run", error=ended)
        if not answer_path.exists():
            return Answer(failed_at="run", error=_death(code, last_words))
        answer = msgspec.json.decode(answer_path.read_bytes(), type=Answer)
        written = sorted(path.name for path in workplace.iterdir())
        if written:
            note = f"it writes into its working directory ({', '.join(written[:3])}); that was an empty one, now removed"
            answer = msgspec.structs.replace(answer, caveats=(*answer.caveats, note))
        return answer


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


@contextlib.contextmanager
def _process(order_path: Path, workplace: Path, errors: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """The worker in a session of its own; at the end it and all that it started are gone."""
    package_parent = str(Path(__file__).resolve().parents[2])
    starter = (
        f"import sys; sys.path.insert(0, {package_parent!r}); "
        "from pytest_membudget.calibration.worker import main; sys.exit(main(*sys.argv[1:]))"
    )
    with _lifeline() as lifeline:
        process = subprocess.Popen(
            [sys.executable, "-c", starter, str(order_path), *map(str, lifeline)],
            cwd=workplace,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,
            pass_fds=lifeline,
        )
        try:
            yield process
        finally:
            _end(process)
            process.wait()


@contextlib.contextmanager
def _lifeline() -> Iterator[tuple[int, ...]]:
    """The end of a pipe that closes when this process ends, however that happens; nothing where there is no such thing."""
    if sys.platform == "win32":
        yield ()
        return
    theirs, ours = os.pipe()
    try:
        yield (theirs,)
    finally:
        os.close(theirs)
        os.close(ours)


def _watch(
    process: subprocess.Popen[bytes],
    answer_path: Path,
    timeout_s: float | None,
    most_bytes: float,
    is_called_off: Callable[[], bool],
) -> str:
    """Waits for the end. Ends the process itself when it takes too long or too much, and then says why."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    answered_s: float | None = None
    while process.poll() is None:
        if answered_s is None and answer_path.exists():
            answered_s = time.monotonic()
        if answered_s is not None and time.monotonic() - answered_s > _ENDING_S:
            _end(process)
            return ""
        held_bytes = tree_resident_bytes([process.pid]).get(process.pid, 0)
        if held_bytes > most_bytes:
            _end(process)
            return (
                f"it held {format_size(held_bytes)} and was ended, since only "
                f"{format_size(most_bytes / _MEMORY_SHARE)} were available"
            )
        if is_called_off():
            _end(process)
            return "it was called off"
        if deadline is not None and time.monotonic() > deadline:
            _end(process)
            return f"it was ended when the time was up, after {format_duration(timeout_s or 0.0)}"
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_WATCH_EVERY_S)
    return ""


def _end(process: subprocess.Popen[bytes]) -> None:
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    elif process.poll() is None:
        process.kill()


def _death(code: int, last_words: str) -> str:
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        hint = ", most likely for want of memory" if name == "SIGKILL" else ""
        return f"its process was ended by {name}{hint}"
    return f"its process ended with code {code}" + (f": {last_words.splitlines()[-1]}" if last_words else "")
