"""`resource.getrusage` for programs that look at their own `ru_maxrss` while we reset the mark that it is made from.

To measure a block, the kernel's high-water mark is set back to what is resident, and `ru_maxrss` falls with it. A test that watches
its own memory by that figure, which otherwise never falls, would see another story. So the largest value before all resets is kept
and put where it would have stood.
"""

from __future__ import annotations

import sys
from typing import Any

from pytest_membudget.measurement.process import high_water


def keep_maxrss_rising() -> None:
    """Puts a `getrusage` in place whose `ru_maxrss` for this process never falls. `restore_getrusage` takes it out again."""
    if sys.platform == "win32":
        return
    import resource

    if isinstance(getattr(resource.getrusage, "__self__", None), _Rising):
        return
    resource.getrusage = _Rising(resource.getrusage).getrusage


def restore_getrusage() -> None:
    """Puts the one that was found back."""
    if sys.platform == "win32":
        return
    import resource

    rising = getattr(resource.getrusage, "__self__", None)
    if isinstance(rising, _Rising):
        resource.getrusage = rising.original


class _Rising:
    def __init__(self, original: Any) -> None:
        self.original = original

    def getrusage(self, who: int, /) -> Any:
        """As `resource.getrusage`."""
        import resource

        usage = self.original(who)
        before_resets_kib = high_water.largest_maxrss_kib()
        if who != resource.RUSAGE_SELF or usage.ru_maxrss >= before_resets_kib:
            return usage
        fields = list(usage)
        fields[_MAXRSS] = before_resets_kib
        return resource.struct_rusage(fields)


_MAXRSS = 2
"""The place of `ru_maxrss` in the record."""
