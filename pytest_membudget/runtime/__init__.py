"""Predict what a task will take, admit it when that fits, run it, and watch.

1. `estimator` predicts a file's memory, `files` its category, time limit and pool, `manager` how many workers fit;
2. `ledger` decides who may start now: bytes against a budget, in order of arrival; `semaphore` makes threads wait
   for it, `dynamic` counts tasks instead of bytes, `host` shares one budget among programs;
3. `executor` runs tasks in processes, threads or one by one, whatever happens to them;
4. `monitor` watches memory while work goes on, cleans up in time and gives advice; `chunks` finds order and size.

Names are loaded when first used: every worker process imports this package.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_membudget.lazy import names_on_demand

if TYPE_CHECKING:
    from pytest_membudget.runtime.chunks import optimize_processing_order as optimize_processing_order
    from pytest_membudget.runtime.chunks import recommend_chunk_rows as recommend_chunk_rows
    from pytest_membudget.runtime.dynamic import DynamicSemaphore as DynamicSemaphore
    from pytest_membudget.runtime.estimator import MemoryEstimator as MemoryEstimator
    from pytest_membudget.runtime.executor import ExecutorPolicy as ExecutorPolicy
    from pytest_membudget.runtime.executor import FallbackExecutor as FallbackExecutor
    from pytest_membudget.runtime.files import FileClasses as FileClasses
    from pytest_membudget.runtime.files import classify_file as classify_file
    from pytest_membudget.runtime.files import get_file_estimate as get_file_estimate
    from pytest_membudget.runtime.files import preview_batch as preview_batch
    from pytest_membudget.runtime.ledger import Ledger as Ledger
    from pytest_membudget.runtime.ledger import Ticket as Ticket
    from pytest_membudget.runtime.manager import ResourceManager as ResourceManager
    from pytest_membudget.runtime.manager import get_optimal_workers as get_optimal_workers
    from pytest_membudget.runtime.monitor import MemoryMonitor as MemoryMonitor
    from pytest_membudget.runtime.semaphore import Lease as Lease
    from pytest_membudget.runtime.semaphore import MemorySemaphore as MemorySemaphore

_MODULE_OF = {
    "DynamicSemaphore": "dynamic",
    "ExecutorPolicy": "executor",
    "FallbackExecutor": "executor",
    "FileClasses": "files",
    "Lease": "semaphore",
    "Ledger": "ledger",
    "MemoryEstimator": "estimator",
    "MemoryMonitor": "monitor",
    "MemorySemaphore": "semaphore",
    "ResourceManager": "manager",
    "Ticket": "ledger",
    "classify_file": "files",
    "get_file_estimate": "files",
    "get_optimal_workers": "manager",
    "optimize_processing_order": "chunks",
    "preview_batch": "files",
    "recommend_chunk_rows": "chunks",
}

__all__ = sorted(_MODULE_OF)  # noqa: PLE0605 - every name is text

__getattr__ = names_on_demand(__name__, _MODULE_OF)
