"""The stacks at the peak of each process that was recorded, as plain records.

`read_stacks` asks an interpreter of its own, which `main` runs in: reading a large recording takes memory, too.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from pytest_membudget.errors import MeasurementError
from pytest_membudget.measurement.fresh import launcher
from pytest_membudget.measurement.fresh.stack_recorder import MAIN

READ_S = 600.0
MOST_FRAMES = 100
MOST_STACKS = 2000
"""Of each process, the largest ones: the rest is a fraction of a percent."""

#: Where CPython's own C files lie, as its debug information names them.
_CPYTHON = ("Objects/", "Python/", "Modules/", "Include/", "./Include/", "Parser/", "Programs/")
_ALLOCATORS = frozenset(
    {"malloc", "calloc", "realloc", "mmap", "operator new(unsigned long)", "default_malloc"}
)

#: Where Python maps room for small objects.
_ARENA = "_PyObject_ArenaMmap"

Frame = tuple[str, str, int]
"""Function, file, line."""


class RecordedStack(msgspec.Struct, frozen=True, kw_only=True):
    """A call stack that held `size_bytes` at the peak of its process, the innermost frame first.

    `native` names the functions of a native library between Python and the allocator, the innermost first.
    `process` is the command line of a child, and empty for the test's own process.
    """

    frames: tuple[Frame, ...]
    size_bytes: int
    native: tuple[str, ...] = ()
    process: str = ""


def read_stacks(folder: Path) -> tuple[RecordedStack, ...]:
    """Every stack of every recording in `folder`.

    Raises:
        MeasurementError: there is no recording, or memray cannot read one.
    """
    if not any(folder.glob("*.bin")):
        raise MeasurementError(f"nothing was recorded in {folder}: the test did not run to its end")
    answer = folder / "stacks.json"
    code = "import sys; from pytest_membudget.measurement.fresh.stack_reader import main; main(*sys.argv[1:])"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with (folder / "errors.txt").open("wb") as errors:
        ending = launcher.run(
            [sys.executable, "-c", code, str(folder), str(answer)],
            env=environment,
            stderr=errors,
            timeout_s=READ_S,
        )
    if ending.exit_code:
        last = (folder / "errors.txt").read_text(errors="replace").strip().rpartition("\n")[2]
        raise MeasurementError(
            f"memray cannot read what was recorded: {last or f'exit code {ending.exit_code}'}"
        )
    return msgspec.json.decode(answer.read_bytes(), type=tuple[RecordedStack, ...])


def main(folder: str, answer: str) -> None:
    """Writes the stacks of `folder` to `answer`."""
    stacks = [stack for path in sorted(Path(folder).glob("*.bin")) for stack in _stacks_of(path)]
    Path(answer).write_bytes(msgspec.json.encode(stacks))


def _stacks_of(path: Path) -> Iterable[RecordedStack]:
    import memray

    try:
        reader = memray.FileReader(os.fspath(path))
    except OSError:
        if path.name == MAIN:
            raise
        return  # a child that was killed before it had written its recording
    with reader:
        process = "" if path.name == MAIN else reader.metadata.command_line or path.stem
        records = sorted(
            reader.get_high_watermark_allocation_records(merge_threads=True), key=lambda record: -record.size
        )
        for record in records[:MOST_STACKS]:
            hybrid = record.hybrid_stack_trace(max_stacks=MOST_FRAMES)
            if any(function == _ARENA for function, _, _ in hybrid[:3]):
                continue  # its objects are recorded one by one
            frames = tuple(record.stack_trace(max_stacks=MOST_FRAMES))
            yield RecordedStack(
                frames=frames,
                size_bytes=record.size,
                native=_native(hybrid, frames),
                process=process,
            )


def _native(hybrid: Sequence[Frame], frames: Sequence[Frame]) -> tuple[str, ...]:
    """The frames of native libraries inside the innermost Python frame; none where it is CPython itself that allocates."""
    python = set(frames)
    found = []
    for function, file, line in hybrid:
        if (function, file, line) in python or file.startswith(_CPYTHON):
            break
        if function not in _ALLOCATORS:
            found.append(function)
    return tuple(found)
