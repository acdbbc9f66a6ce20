"""How much a check lets pile up before it stops for the sake of the machine."""

from __future__ import annotations

from typing import NamedTuple

from pytest_membudget.measurement.growth.samples import Figures
from pytest_membudget.measurement.system.limit import memory_reading
from pytest_membudget.originals import resource, restored, sys
from pytest_membudget.units import format_size

MOST_GROWN_BYTES = 512 << 20
MOST_THREADS = 200
MOST_CHILDREN = 64
MOST_SEGMENTS = 2000
FEWEST_CALLS = 8
_UNLIMITED_DESCRIPTORS = 4096


class Caps(NamedTuple):
    """The most that each figure may grow."""

    heap_bytes: int
    mapped_bytes: int
    resident_bytes: int
    children_bytes: int
    shared_bytes: int
    descriptors: int
    threads: int = MOST_THREADS
    children: int = MOST_CHILDREN
    segments: int = MOST_SEGMENTS

    @classmethod
    def for_this_machine(cls, first: Figures) -> Caps:
        """An eighth of the memory that is free and half of the descriptors that are, within fixed bounds."""
        with restored():
            grown_bytes = min(MOST_GROWN_BYTES, memory_reading().available_bytes // 8)
        descriptors = (_descriptor_limit() - first.descriptors) // 2
        return cls(grown_bytes, grown_bytes, grown_bytes, grown_bytes, grown_bytes, descriptors)

    def reached(self, first: Figures, last: Figures, calls: int) -> str:
        """Why no more calls should be made, or nothing. A few calls are made in any case that memory allows."""
        for name, cap in self._asdict().items():
            grown = getattr(last, name) - getattr(first, name)
            if grown >= (cap if calls >= FEWEST_CALLS else 4 * cap):
                shown = format_size(grown) if name.endswith("_bytes") else f"{grown} {name}"
                return f"{shown} had piled up by then"
        return ""

    def calls_left(self, first: Figures, last: Figures, calls: int) -> int:
        """How many calls may follow before a cap is reached, at the mean growth so far; at least one."""
        left = sys.maxsize
        for name, cap in self._asdict().items():
            grown = getattr(last, name) - getattr(first, name)
            if grown > 0 and calls:
                left = min(left, int((cap - grown) * calls / grown) + 1)
        return max(1, left)


def _descriptor_limit() -> int:
    if sys.platform == "win32":
        return _UNLIMITED_DESCRIPTORS
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(limit, _UNLIMITED_DESCRIPTORS) if limit != resource.RLIM_INFINITY else _UNLIMITED_DESCRIPTORS
