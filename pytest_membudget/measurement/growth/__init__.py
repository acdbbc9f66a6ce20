"""Growth: does what a function holds grow with every call, and what is it that grows?

1. `rounds` calls the function, ever more often between two samples;
2. `figures` takes a sample: exact bytes and counts after a collection;
3. `stats.growth` decides from the samples: leak, clean, or not yet known;
4. for a leak, `culprits` and `resources` say who.

`task_heap` reads what a worker process holds after its tasks. Names are loaded when first used: workers need only that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_membudget.lazy import names_on_demand

if TYPE_CHECKING:
    from pytest_membudget.measurement.growth.check import check_growth as check_growth
    from pytest_membudget.measurement.growth.task_heap import TaskHeap as TaskHeap

_MODULE_OF = {"TaskHeap": "task_heap", "check_growth": "check"}

__all__ = sorted(_MODULE_OF)  # noqa: PLE0605 - every name is text

__getattr__ = names_on_demand(__name__, _MODULE_OF)
