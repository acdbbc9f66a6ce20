"""How far does a reader walk? Files and functions of ours that are entered in this process, counted by a trace of real runs.

    python benchmarks/walk.py          # both walks, each in an interpreter of its own
    python benchmarks/walk.py batch    # a batch of six files, from `FallbackExecutor(…)` to its end
    python benchmarks/walk.py peak     # one peak: a session of pytest with one budgeted test, from its first hook to its tables

Every call of a function of the package is counted, in all threads; what modules do while they are imported is not.
"""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any, Self

import pytest

import pytest_membudget
from pytest_membudget import FallbackExecutor

PACKAGE = str(Path(pytest_membudget.__file__).parent)
IMPORT_TIME = {"<module>", "<genexpr>", "<listcomp>", "<setcomp>", "<dictcomp>", "<lambda>"}


class Walk:
    """Counts the functions entered, by file."""

    def __init__(self) -> None:
        self.functions: Counter[tuple[str, str]] = Counter()

    def profile(self, frame: FrameType, event: str, argument: Any) -> None:
        if event != "call" or not frame.f_code.co_filename.startswith(PACKAGE):
            return
        code = frame.f_code
        if code.co_name in IMPORT_TIME or _is_importing(frame):
            return
        file = code.co_filename.removeprefix(f"{PACKAGE}/")
        self.functions[file, code.co_qualname] += 1

    def __enter__(self) -> Self:
        threading.setprofile(self.profile)
        sys.setprofile(self.profile)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)
        threading.setprofile(None)


def _is_importing(frame: FrameType) -> bool:
    """Class bodies and decorators run while their module is imported."""
    caller: FrameType | None = frame
    while caller is not None:
        if caller.f_code.co_name == "<module>" and caller.f_code.co_filename.startswith(PACKAGE):
            return True
        caller = caller.f_back
    return False


def size(path: str) -> int:
    """What a worker does with a file."""
    return Path(path).stat().st_size


def walk_of_a_batch(folder: Path) -> Walk:
    """Six files through worker processes."""
    paths = []
    for number in range(6):
        paths.append(str(folder / f"{number}.csv"))
        Path(paths[-1]).write_text("a,b\n" * number)
    with Walk() as walk, FallbackExecutor(2, budget="1 GB") as executor:
        batch = executor.run(size, paths)
    assert batch.values == [0, 4, 8, 12, 16, 20]
    return walk


def walk_of_a_peak(folder: Path) -> Walk:
    """One test with a budget, measured, judged and shown."""
    test = folder / "test_one.py"
    test.write_text(
        "import pytest\n\n\n@pytest.mark.memory_budget('50 MB')\ndef test_peak():\n    assert bytearray(10_000_000)\n"
    )
    arguments = [
        str(test),
        "--membudget-report",
        f"--rootdir={folder}",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:asyncio",
    ]
    with Walk() as walk, contextlib.redirect_stdout(io.StringIO()) as shown:
        code = pytest.main(arguments)
    assert code == 0, shown.getvalue()
    assert "test_one.py::test_peak" in shown.getvalue(), shown.getvalue()
    return walk


WALKS = {
    "batch": ("a batch of six files", walk_of_a_batch, 30, 150),
    "peak": ("one peak from hook to table", walk_of_a_peak, 30, None),
}


def show(name: str) -> None:
    """Prints each file of a walk with its functions, and the figures."""
    title, take, most_files, most_functions = WALKS[name]
    with tempfile.TemporaryDirectory() as folder:
        walk = take(Path(folder))
    files = Counter(file for file, _ in walk.functions)
    for file, functions in sorted(files.items()):
        print(f"{functions:4} functions in {file}")
    rooms = Counter(file.rpartition("/")[0] for file in files)
    for room, count in sorted(rooms.items()):
        of_room = sum(functions for file, functions in files.items() if file.rpartition("/")[0] == room)
        print(f"{room or 'top level'}: {count} files, {of_room} functions")
    of_functions = f" (goal: at most {most_functions})" if most_functions else ""
    print(
        f"{title}: {len(files)} files (goal: at most {most_files}), {len(walk.functions)} functions{of_functions}"
    )


def main() -> None:
    """Each walk in an interpreter of its own: what the first one has started would spare the second a part of its way."""
    if chosen := sys.argv[1:]:
        show(*chosen)
        return
    for name in WALKS:
        subprocess.run([sys.executable, __file__, name], check=True)


if __name__ == "__main__":
    main()
