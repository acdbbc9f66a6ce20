"""What did it really take? Peaks from the kernel, process trees, fresh interpreters, and the real limit.

1. `high_water` reads this process: exact, one system call.
2. `limit` and `cgroups` say how much may be used, `fingerprint` what else may change a figure.
3. `probe` measures a block that runs here: it opens this process's mark, and asks
4. `sampler`, which keeps the helper process that watches the tree (`tree_helper`); without one `inside` stands in.
5. `combine` makes one record of both; `settling` sees to it that what ran before does not change the figure.
6. `isolated` does the same in a fresh interpreter, `command` for any program.
7. `watchdog` ends a block that outgrows its limit while it runs (`listener` is its thread, `stacks` what it shows,
   `interruption` how it stops); `attribution` says who allocated the peak.
8. `growth` repeats a function and says whether it leaks.

Names are loaded when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_membudget.lazy import names_on_demand

if TYPE_CHECKING:
    from pytest_membudget.measurement.attribution import attribute as attribute
    from pytest_membudget.measurement.attribution import read_captures as read_captures
    from pytest_membudget.measurement.attribution import recording as recording
    from pytest_membudget.measurement.bite import Bite as Bite
    from pytest_membudget.measurement.command import measure_command as measure_command
    from pytest_membudget.measurement.diagnosis import doctor as doctor
    from pytest_membudget.measurement.fingerprint import environment as environment
    from pytest_membudget.measurement.growth.check import check_growth as check_growth
    from pytest_membudget.measurement.growth.task_heap import TaskHeap as TaskHeap
    from pytest_membudget.measurement.high_water import high_water_bytes as high_water_bytes
    from pytest_membudget.measurement.high_water import reset_high_water_mark as reset_high_water_mark
    from pytest_membudget.measurement.high_water import resident_bytes as resident_bytes
    from pytest_membudget.measurement.high_water import tree_resident_bytes as tree_resident_bytes
    from pytest_membudget.measurement.interruption import forget_frames as forget_frames
    from pytest_membudget.measurement.isolated import measure_isolated as measure_isolated
    from pytest_membudget.measurement.limit import memory_limit as memory_limit
    from pytest_membudget.measurement.limit import memory_reading as memory_reading
    from pytest_membudget.measurement.probe import Probe as Probe
    from pytest_membudget.measurement.probe import measure as measure
    from pytest_membudget.measurement.probe import measuring as measuring
    from pytest_membudget.measurement.sampler import close_sampler as close_sampler
    from pytest_membudget.measurement.watchdog import Watchdog as Watchdog

_MODULE_OF = {
    "Bite": "bite",
    "Probe": "probe",
    "TaskHeap": "growth.task_heap",
    "Watchdog": "watchdog",
    "attribute": "attribution",
    "check_growth": "growth.check",
    "close_sampler": "sampler",
    "doctor": "diagnosis",
    "environment": "fingerprint",
    "forget_frames": "interruption",
    "high_water_bytes": "high_water",
    "measure": "probe",
    "measure_command": "command",
    "measure_isolated": "isolated",
    "measuring": "probe",
    "memory_limit": "limit",
    "memory_reading": "limit",
    "read_captures": "attribution",
    "recording": "attribution",
    "reset_high_water_mark": "high_water",
    "resident_bytes": "high_water",
    "tree_resident_bytes": "high_water",
}

__all__ = sorted(_MODULE_OF)  # noqa: PLE0605 - every name is text

__getattr__ = names_on_demand(__name__, _MODULE_OF)
