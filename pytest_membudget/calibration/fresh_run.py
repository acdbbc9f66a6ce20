"""One run in an interpreter of its own: started, watched, and cleared away whatever happens."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from pytest_membudget.calibration.worker import Answer, FunctionReference, Order, RunInput
from pytest_membudget.measurement.fresh.launcher import Launched, launch
from pytest_membudget.measurement.system.machine import memory_reading
from pytest_membudget.records.measurement import Ending
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
    timeout_s: float | None = None,
    is_called_off: Callable[[], bool] = lambda: False,
) -> Answer:
    """Runs the function on `input_file` (a path, or another input) in a fresh interpreter, in an empty folder inside `folder`.

    Failures of the function are in the answer. Nothing of the run is left: neither process nor file.
    """
    with _run_folder(folder) as (place, workplace):
        order_path, answer_path = place / "order.json", place / "answer.json"
        order = Order(
            function=function, warm_up=_input(warm_up), input=_input(input_file), answer=str(answer_path)
        )
        order_path.write_bytes(msgspec.json.encode(order))
        ending, last_words = _run(place, timeout_s, is_called_off)
        if ending.ended_by_us or not answer_path.exists():
            return Answer(failed_at="run", error=_death(ending, last_words))
        answer = msgspec.json.decode(answer_path.read_bytes(), type=Answer)
        written = sorted(path.name for path in workplace.iterdir())
        if written:
            caveat = f"it writes into its working directory ({', '.join(written[:3])}); that was an empty one, now removed"
            answer = msgspec.structs.replace(answer, caveats=(*answer.caveats, caveat))
        return answer


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
