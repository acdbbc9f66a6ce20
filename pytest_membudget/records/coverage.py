"""How often tasks took more than was estimated, beside what was promised."""

from __future__ import annotations

import msgspec

from pytest_membudget.records.quantities import Count
from pytest_membudget.units import format_share


class Coverage(msgspec.Struct, frozen=True, kw_only=True):
    """Tasks that were estimated and then seen, and those that took more, by more than two runs of one input may differ.

    The true rate lies between `low` and `high` with 99% confidence at all times at once: the interval may be read after
    every task.
    """

    tasks: Count
    exceeded: Count
    low: float
    high: float
    #: The largest share that may exceed its estimate; `None` where nothing is promised.
    promised: float | None = None

    @property
    def is_broken(self) -> bool:
        """Whether more tasks exceed their estimates than was promised, beyond chance."""
        return self.promised is not None and self.low > self.promised

    def __str__(self) -> str:
        counted = (
            f"{self.exceeded} of {self.tasks} tasks took more than was estimated "
            f"(true rate {format_share(self.low)} to {format_share(self.high)})"
        )
        if self.promised is None:
            return counted
        state = "; calibrate again on inputs like these" if self.is_broken else ""
        return f"{counted}, where at most {format_share(self.promised)} are promised{state}"
