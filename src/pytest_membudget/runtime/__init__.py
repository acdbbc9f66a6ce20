"""Predict what a task will take, admit it when that fits, run it, and watch.

1. `estimator` predicts a file's memory, `files` its category, time limit and pool, `manager` how many workers fit;
2. `ledger` decides who may start now: bytes against a budget, in order of arrival; `semaphore` makes threads wait
   for it, `dynamic` counts tasks instead of bytes, `host` shares one budget among programs;
3. `monitor` watches memory while work goes on, cleans up in time and gives advice; `chunks` finds order and size.
"""

from __future__ import annotations

from pytest_membudget.runtime.chunks import optimize_processing_order, recommend_chunk_rows
from pytest_membudget.runtime.dynamic import DynamicSemaphore
from pytest_membudget.runtime.estimator import MemoryEstimator
from pytest_membudget.runtime.files import FileClasses, classify_file, get_file_estimate, preview_batch
from pytest_membudget.runtime.ledger import Ledger, Ticket
from pytest_membudget.runtime.manager import ResourceManager, get_optimal_workers
from pytest_membudget.runtime.monitor import MemoryMonitor
from pytest_membudget.runtime.semaphore import Lease, MemorySemaphore

__all__ = [
    "DynamicSemaphore",
    "FileClasses",
    "Lease",
    "Ledger",
    "MemoryEstimator",
    "MemoryMonitor",
    "MemorySemaphore",
    "ResourceManager",
    "Ticket",
    "classify_file",
    "get_file_estimate",
    "get_optimal_workers",
    "optimize_processing_order",
    "preview_batch",
    "recommend_chunk_rows",
]
