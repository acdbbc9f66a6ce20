"""What a worker holds after each task, cheaply enough to read after every one."""

from __future__ import annotations

from pytest_membudget.measurement.process.heap import heap_in_use_bytes
from pytest_membudget.measurement.process.small_blocks import SmallBlockReader
from pytest_membudget.originals import contextlib, sys


class TaskHeap:
    """Heap in use of this process: malloc exactly, and Python's small blocks by their number.

    How many bytes a block has is measured once, at the start; afterwards a reading takes some microseconds and
    collects nothing. Garbage that waits for the collector is counted: it is gone in a later reading, and
    `judge_task_series` looks at what never is.
    """

    def __init__(self) -> None:
        with contextlib.closing(SmallBlockReader()) as reader:
            blocks = sys.getallocatedblocks()
            self._bytes_per_block = reader.read().used_bytes / blocks if blocks else 0.0

    def read(self) -> int:
        """Bytes of heap in use now."""
        return heap_in_use_bytes() + int(sys.getallocatedblocks() * self._bytes_per_block)
