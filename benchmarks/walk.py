"""How far does a reader walk? Files and functions of ours that a batch of six files enters in the coordinator.

Run it: python benchmarks/walk.py. Every call of a function of the package is counted, in all threads, from `FallbackExecutor(…)` to
its end; what modules do while they are imported is not.
"""

from __future__ import annotations

import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any, Self

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


def main() -> None:
    """Prints the figures, and each file with its functions."""
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for number in range(6):
            paths.append(str(Path(folder) / f"{number}.csv"))
            Path(paths[-1]).write_text("a,b\n" * number)
        with Walk() as walk, FallbackExecutor(2, budget="1 GB") as executor:
            batch = executor.run(size, paths)
    assert batch.values == [0, 4, 8, 12, 16, 20]
    files = Counter(file for file, _ in walk.functions)
    for file, functions in sorted(files.items()):
        print(f"{functions:4} functions in {file}")
    rooms = Counter(file.rpartition("/")[0] for file in files)
    for room, count in sorted(rooms.items()):
        of_room = sum(functions for file, functions in files.items() if file.rpartition("/")[0] == room)
        print(f"{room or 'top level'}: {count} files, {of_room} functions")
    print(f"{len(files)} files (goal: at most 30), {len(walk.functions)} functions (goal: at most 150)")


if __name__ == "__main__":
    main()
