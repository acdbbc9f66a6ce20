"""What did it really take? Peaks from the kernel, process trees, fresh interpreters, and the real limit.

1. `process` reads one process: its high-water mark, its heap, and what its allocators keep.
2. `system` reads the machine: how much may be used, and what else may change a figure.
3. `probe` measures a block that runs here: it opens this process's mark, and asks
4. `tree`, the helper process that watches everything that the block starts; `combine` makes one record of both.
5. `fresh` does the same in a new interpreter, or for any command.
6. `watchdog` ends a block that outgrows its limit while it runs.
7. `growth` repeats a function and says whether it leaks.
"""

from __future__ import annotations

from pytest_membudget.lazy import names_on_demand

# What programs import from here, beside the public names of the package.
__getattr__ = names_on_demand(
    __name__, {"memory_limit": "system.machine", "memory_reading": "system.machine"}
)
