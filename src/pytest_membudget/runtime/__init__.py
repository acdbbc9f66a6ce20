"""Predict what a task will take, admit it when that fits, run it, and watch.

1. `estimator` predicts a file's memory, `files` its category, time limit and pool, `manager` how many workers fit;
2. `ledger` decides who may start now: bytes against a budget, in order of arrival; `semaphore` makes threads wait
   for it, `dynamic` counts tasks instead of bytes, `host` shares one budget among programs.
"""

from __future__ import annotations

from pytest_membudget.runtime.dynamic import DynamicSemaphore
from pytest_membudget.runtime.estimator import MemoryEstimator
from pytest_membudget.runtime.files import FileClasses, classify_file, get_file_estimate, preview_batch
from pytest_membudget.runtime.ledger import Ledger, Ticket
from pytest_membudget.runtime.manager import ResourceManager, get_optimal_workers
from pytest_membudget.runtime.semaphore import Lease, MemorySemaphore

__all__ = [
    "DynamicSemaphore",
    "FileClasses",
    "Lease",
    "Ledger",
    "MemoryEstimator",
    "MemorySemaphore",
    "ResourceManager",
    "Ticket",
    "classify_file",
    "get_file_estimate",
    "get_optimal_workers",
    "preview_batch",
]
