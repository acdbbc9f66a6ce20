"""Everything a monitor asks about this process, in one place that tests can replace."""

from __future__ import annotations

from typing import NamedTuple

from pytest_membudget.measurement.process import heap, high_water
from pytest_membudget.measurement.system.limit import memory_reading
from pytest_membudget.originals import gc


class ProcessFigures(NamedTuple):
    """This process at one instant, in bytes, and what is available to it beyond."""

    rss_bytes: int
    uss_bytes: int
    vms_bytes: int
    available_bytes: int


class ProcessMemory:
    """Reads this process's memory."""

    def resident_bytes(self) -> int:
        """What is resident now (about 15 µs)."""
        return high_water.resident_bytes()

    def figures(self) -> ProcessFigures:
        """The full figures (about 10 ms for 1 GiB: unshared memory is counted page by page)."""
        try:
            rss_bytes, uss_bytes, vms_bytes = _psutil_figures()
        except ImportError:
            rss_bytes = uss_bytes = vms_bytes = high_water.resident_bytes()
        return ProcessFigures(rss_bytes, uss_bytes, vms_bytes, memory_reading().available_bytes)

    def limit_bytes(self) -> int:
        """The real limit of this process."""
        return memory_reading().limit.bytes

    def open_mark(self) -> high_water.Mark | None:
        """Starts to keep the exact peak; `None` where the kernel cannot."""
        return high_water.open_mark()

    def mark_peak_bytes(self, mark: high_water.Mark) -> int:
        """The most that was resident since `mark` was opened, which stays open."""
        return max(mark.peak_bytes, high_water.high_water_bytes())

    def close_mark(self, mark: high_water.Mark) -> int:
        """The most that was resident since `mark` was opened."""
        return high_water.close_mark(mark)

    def heap(self) -> heap.Heap:
        """Malloc's heap, in use and kept."""
        return heap.read_heap()

    def trim(self) -> None:
        """Gives free memory back to the system, as far as malloc can."""
        heap.trim_heap()

    def collect_and_trim(self) -> None:
        """Collects cyclic garbage and gives free memory back to the system."""
        gc.collect()
        heap.trim_heap()


def _psutil_figures() -> tuple[int, int, int]:
    import psutil

    memory = psutil.Process().memory_full_info()
    return int(memory.rss), int(memory.uss), int(memory.vms)
