"""Who took it: a second run under memray, in a fresh interpreter.

1. `recording` runs in that interpreter, around what is recorded. memray allows one tracker a process: where another
   one is at work the reason is given instead.
2. `read_captures` reads the stacks at the peak, draws the flame graph, and keeps both on disk.

`read_stacks` reads the recordings of `stack_recorder`, one of each process, as plain records.

memray counts heap, what was asked for; a peak is resident memory, what was touched. `note` says so beside the figures.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from pytest_membudget.errors import (
    MeasurementError,
    MissingExtraError,
    UnreadableFileError,
)
from pytest_membudget.measurement.fresh.launcher import run
from pytest_membudget.measurement.fresh.stack_recorder import MAIN
from pytest_membudget.records.report import AllocationSite, Attribution
from pytest_membudget.units import format_size

MOST_SITES = 10
MOST_FRAMES = 12
READ_S = 600.0

NOTE = (
    "memray counts the heap that was asked for, the peak is memory that was touched: untouched and freed-but-kept "
    "memory make them differ, and so do thread stacks, mapped files and memory of other programs"
)

MOST_STACK_FRAMES = 100
MOST_STACKS = 2000
"""Of each process, the largest ones: the rest is a fraction of a percent."""

#: Where CPython's own C files lie, as its debug information names them.
_CPYTHON = ("Objects/", "Python/", "Modules/", "Include/", "./Include/", "Parser/", "Programs/")
_ALLOCATORS = frozenset(
    {"malloc", "calloc", "realloc", "mmap", "operator new(unsigned long)", "default_malloc"}
)

#: Where Python maps room for small objects.
_ARENA = "_PyObject_ArenaMmap"


@contextlib.contextmanager
def recording(capture: str | os.PathLike[str]) -> Iterator[str]:
    """Records the block's allocations, forked children included, in `capture`.

    Yields why nothing is recorded, as a sentence; empty while recording.

    Raises:
        MissingExtraError: memray is not installed.
    """
    try:
        import memray
    except ImportError as error:
        raise MissingExtraError("saying who allocated the peak", "memray", "memray") from error
    destination = memray.FileDestination(os.fspath(capture), overwrite=True)
    tracker = memray.Tracker(
        destination=destination, follow_fork=True, file_format=memray.FileFormat.AGGREGATED_ALLOCATIONS
    )
    try:
        tracker.__enter__()
    except RuntimeError as error:
        yield f"memray is at work in this process already ({error}); there is one tracker a process"
        return
    try:
        yield ""
    finally:
        tracker.__exit__(None, None, None)


def emptied(folder: Path) -> tuple[Path, Path]:
    """Where a run's capture and flame graph go in `folder`, which is made; those of an earlier run are removed.

    What was left there would be taken for this run's: its forked children write captures of any name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    capture, flame_graph = folder / "capture.bin", folder / "flamegraph.html"
    for old in (capture, *folder.glob(f"{capture.name}.*"), flame_graph):
        old.unlink(missing_ok=True)
    return capture, flame_graph


def read_captures(
    capture: str | os.PathLike[str], flame_graph: str | os.PathLike[str] | None = None
) -> Attribution:
    """The stacks at the peak of the process that held the most, of those that wrote a capture.

    A capture is read by an interpreter of its own: reading a large one takes memory, too.

    Raises:
        MeasurementError: there is no capture, or memray cannot read it.
    """
    found = [_read(each) for each in captures(capture)]
    if not found:
        raise MeasurementError(
            f"nothing was recorded in {capture}: the run ended before its first allocation"
        )
    largest = max(found, key=lambda each: each.heap_bytes)
    caveats = list(largest.caveats)
    if len(found) > 1:
        others = format_size(sum(each.heap_bytes for each in found) - largest.heap_bytes)
        caveats.append(
            f"{len(found)} processes were recorded; these are the sites of the largest, the peaks of the others add "
            f"up to {others}"
        )
    drawn = "" if flame_graph is None else _draw(largest.capture, os.fspath(flame_graph), caveats)
    return msgspec.structs.replace(largest, flame_graph=drawn, caveats=tuple(caveats))


def captures(capture: str | os.PathLike[str]) -> list[Path]:
    """The capture of a process and those of the children that it forked."""
    first = Path(capture)
    children = sorted(first.parent.glob(f"{first.name}.*"))
    return [each for each in (first, *children) if each.is_file() and each.stat().st_size]


def sites_of(capture: str | os.PathLike[str]) -> Attribution:
    """Reads one capture here."""
    import memray

    try:
        with memray.FileReader(os.fspath(capture)) as reader:
            records = list(reader.get_high_watermark_allocation_records(merge_threads=True))
    except (OSError, ValueError) as error:
        raise UnreadableFileError(f"{capture} is not a capture of memray's: {error}") from None
    largest = sorted(records, key=lambda record: -record.size)[:MOST_SITES]
    sites = tuple(
        AllocationSite(
            stack=tuple(
                f"{function} ({Path(file).name}:{line})"
                for function, file, line in record.stack_trace(max_stacks=MOST_FRAMES)
            ),
            heap_bytes=record.size,
            allocations=record.n_allocations,
        )
        for record in largest
    )
    return Attribution(
        sites=sites, heap_bytes=sum(record.size for record in records), capture=os.fspath(capture), note=NOTE
    )


def _read(capture: Path) -> Attribution:
    written, problem = _read_elsewhere("write_sites", capture)
    if problem:
        raise MeasurementError(f"memray cannot read {capture}: {problem}")
    return msgspec.json.decode(written, type=Attribution)


def _read_elsewhere(function: str, path: Path) -> tuple[bytes, str]:
    """What a function of this module writes in an interpreter of its own: to read a large recording takes memory, too."""
    code = f"import sys; from {__name__} import {function} as write; write(sys.argv[1])"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return _interpreter(["-c", code, os.fspath(path)], environment)


def write_sites(capture: str) -> None:
    """Writes what a capture holds to standard output, for the interpreter that asked."""
    sys.stdout.buffer.write(msgspec.json.encode(sites_of(capture)))


def _draw(capture: str, flame_graph: str, caveats: list[str]) -> str:
    words = ["-m", "memray", "flamegraph", "--force", "--output", flame_graph]
    # Older releases know no --no-web and draw a page that loads its scripts from the network.
    for options in (["--no-web"], []):
        _, problem = _interpreter([*words, *options, capture], None)
        if not problem:
            return flame_graph
    caveats.append(f"the flame graph could not be drawn: {problem}")
    return ""


def _interpreter(words: list[str], environment: dict[str, str] | None) -> tuple[bytes, str]:
    """What a fresh interpreter writes, and why it failed: the last line that it wrote about that, or how it ended."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        ending = run(
            [sys.executable, *words],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            timeout_s=READ_S,
        )
        output.seek(0)
        errors.seek(0)
        last_line = errors.read().decode(errors="replace").strip().rpartition("\n")[2]
        return output.read(), (last_line or f"its interpreter {ending}") if ending.exit_code else ""


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
    written, problem = _read_elsewhere("write_stacks", folder)
    if problem:
        raise MeasurementError(f"memray cannot read what was recorded: {problem}")
    return msgspec.json.decode(written, type=tuple[RecordedStack, ...])


def write_stacks(folder: str) -> None:
    """Writes the stacks of `folder` to standard output, for the interpreter that asked."""
    stacks = [stack for path in sorted(Path(folder).glob("*.bin")) for stack in _stacks_of(path)]
    sys.stdout.buffer.write(msgspec.json.encode(stacks))


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
            hybrid = record.hybrid_stack_trace(max_stacks=MOST_STACK_FRAMES)
            if any(function == _ARENA for function, _, _ in hybrid[:3]):
                continue  # its objects are recorded one by one
            frames = tuple(record.stack_trace(max_stacks=MOST_STACK_FRAMES))
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
