"""Which descriptors, threads and children piled up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import psutil

from pytest_membudget.measurement.process.children import children_of
from pytest_membudget.originals import contextlib, os, restored, sys, threading
from pytest_membudget.records.growth import ResourceGrowth
from pytest_membudget.stats.growth import Trend

_MOST_EXAMPLES = 5
_LINUX = sys.platform.startswith("linux")


class Inventory(NamedTuple):
    """What was open or running at one moment: a name for each, by its number."""

    descriptors: dict[int, str]
    threads: dict[int, str]
    children: dict[int, str]

    @classmethod
    def take(cls) -> Inventory:
        """Lists everything there is now."""
        with restored():
            return cls(
                _descriptors(), _threads(), {pid: _process_name(pid) for pid in children_of(os.getpid())}
            )

    def growth(self, trends: dict[str, Trend], new_segments: Iterable[str]) -> tuple[ResourceGrowth, ...]:
        """The kinds of which `trends` says that they grow, with what is there now and was not in this inventory."""
        growing = [kind for kind in self._fields if trends[kind].direction == "growing"]
        segments = trends["segments"]
        found = []
        if segments.direction == "growing":
            found.append(
                ResourceGrowth("segments", segments.slope, tuple(sorted(new_segments)[:_MOST_EXAMPLES]))
            )
        if not growing:
            return tuple(found)
        now = Inventory.take()
        return *found, *(
            ResourceGrowth(kind, trends[kind].slope, _most_common(getattr(self, kind), getattr(now, kind)))  # type: ignore[arg-type]  # the fields are the kinds
            for kind in growing
        )


def _most_common(before: dict[int, str], now: dict[int, str]) -> tuple[str, ...]:
    added = Counter(name for number, name in now.items() if before.get(number) != name)
    return tuple(f"{name} ({count}x)" for name, count in added.most_common(_MOST_EXAMPLES))


def _descriptors() -> dict[int, str]:
    folder = "/proc/self/fd" if _LINUX else "/dev/fd"
    found: dict[int, str] = {}
    with contextlib.suppress(OSError):
        for number in os.listdir(folder):
            # The descriptor of the listing itself is gone by now.
            with contextlib.suppress(OSError):
                found[int(number)] = str(Path(folder, number).readlink()).split(":[", maxsplit=1)[0]
    return found


def _threads() -> dict[int, str]:
    named = {thread.native_id or 0: thread.name for thread in threading.enumerate()}
    if _LINUX:
        for number in map(int, os.listdir("/proc/self/task")):
            with contextlib.suppress(OSError):
                own_name = Path(f"/proc/self/task/{number}/comm").read_text(errors="replace").strip()
                named.setdefault(number, f"native thread {own_name!r}")
    return named


def _process_name(pid: int) -> str:
    try:
        process = psutil.Process(pid)
        return f"{process.name()} ({process.status()})"
    except psutil.Error:
        return "a process that has ended"
