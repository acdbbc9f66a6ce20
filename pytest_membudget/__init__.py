"""Memory budgets for programs that process many files in parallel.

It is a loop, and each step is a folder:

1. `inputs` makes files of exactly the asked size; `runtime` **predicts** what a file will take,
2. **admits** it when that fits under the real limit, and
3. **runs** it, in processes that fall back to threads and then to one by one;
4. `measurement` says what the whole process tree really used, and how certain that is;
5. `gate` **judges** it against a budget and a baseline;
6. `report` **shows** it; and
7. `calibration` **learns**, so that the next prediction is better.

`plugin` is how pytest gets in, `cli` how the shell does. Every public name is importable from here and is
loaded when first used, so that importing the package costs next to nothing.

Two folders are nouns where the loop has verbs, because `measure` and `calibrate` are the public functions.
"""

from __future__ import annotations

from pytest_membudget._version import __version__
from pytest_membudget.lazy import names_on_demand

# Names by the module that defines them; `__init__.pyi` gives type checkers the same (a test compares the two).
_PUBLIC = {
    "calibration.run_loop": "calibrate",
    "calibration.store": "fit_points load_calibration",
    "calibration.in_flight": "calibrate_in_flight",
    "calibration.model": "Calibration",
    "errors": """
        CalibrationError IsolatedCrashError MeasurementError MembudgetError MissingExtraError OverBudgetError OversizeError
        StartTimeoutError TaskMemoryError TaskOverLimitError TaskTimeoutError UnpicklableError UnreadableFileError UsageError
        WatchdogStop WorkerKilledError
    """,
    "inputs": "KINDS synthesize",
    "measurement.doctor": "doctor",
    "measurement.fresh.command": "measure_command",
    "measurement.fresh.isolated": "measure_isolated",
    "measurement.growth.check": "check_growth",
    "measurement.probe": "measure measuring",
    "measurement.system.machine": "memory_limit memory_reading",
    "plugin.fixtures": "Membudget",
    "records.judgement": "Budget Growth Judgement",
    "records.measurement": "CommandMeasurement Measurement MemoryLimit MemoryReading",
    "records.monitor": "CleanupResult MemorySnapshot MonitorReport",
    "records.report": "Report TestRecord",
    "records.run": """
        BatchResult BatchSummary Breakdown FileCategory HostUse LevelEvent Outcome ResourceEstimate SyntheticFile summarize_batch
    """,
    "records.scale": "Scale",
    "report.writing": "load_report write_report",
    "runtime.admission.semaphore": "DynamicSemaphore MemorySemaphore",
    "runtime.executor.executor": "FallbackExecutor",
    "runtime.executor.policy": "ExecutorPolicy",
    "runtime.monitoring.advice": "optimize_processing_order recommend_chunk_rows",
    "runtime.monitoring.monitor": "MemoryMonitor",
    "runtime.prediction.estimator": "MemoryEstimator",
    "runtime.prediction.files": "FileClasses ResourceManager classify_file get_file_estimate get_optimal_workers preview_batch",
}
_MODULE_OF = {name: module for module, names in _PUBLIC.items() for name in names.split()}

__all__ = ["__version__", *sorted(_MODULE_OF)]  # noqa: PLE0604 - every name is text

__getattr__ = names_on_demand(__name__, _MODULE_OF)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
