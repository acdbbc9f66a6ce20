"""A limit for one call that the kernel holds, where a control group can be made: 400 MB/s is 8 MB between two readings.

The coordinator reads every worker's tree and ends what exceeds its limit; that is exact, but late by a reading. So a worker whose
call has a limit is also put into a control group of its own. What was resident before stays charged elsewhere, so the group
counts what calls add. Its limit is a little above the call's: page tables and other memory of the kernel count there as
well, and a tree that is read in time is ended by its own figure.
"""

from __future__ import annotations

import contextlib
import os

from pytest_membudget.measurement.system.control_group import ControlGroup, make_control_group

_EXCESS_SHARE = 0.03
_EXCESS_BYTES = 2 * 1024 * 1024
"""What the kernel lets a call take above its limit."""

_HELPER_BYTES = 8 * 1024 * 1024
"""What the helper may take that measures a call's tree. It is started by the first call that starts anything."""


class HeldGroup:
    """A worker's control group, as the coordinator sees it."""

    def __init__(self) -> None:
        self._group: ControlGroup | None = None
        self._cannot_be_made = False

    def address(self) -> tuple[int, str] | None:
        """What the worker is to be told; `None` where no group can be made."""
        if self._group is None and not self._cannot_be_made:
            self._group = make_control_group(None, stands_still=False)
            self._cannot_be_made = self._group is None
        return None if self._group is None else self._group.address

    def has_reached_limit(self) -> bool:
        """Whether the kernel has ended something there."""
        return self._group is not None and self._group.has_reached_limit()

    def close(self) -> None:
        """Removes the group, and what calls have left running in it."""
        if self._group is not None:
            self._group.close()
            self._group = None


class HeldCalls:
    """The same group, as its worker sees it."""

    def __init__(self) -> None:
        self._group: ControlGroup | None = None
        self._is_held = False

    def begin(self, limit_bytes: int | None, address: tuple[int, str] | None, *, has_helper: bool) -> None:
        """Just before a call. Where the kernel refuses, the coordinator's readings alone keep the limit."""
        if limit_bytes is None or address is None:
            if self._is_held:
                self._set_limit(None)
            return
        if self._group is None:
            self._group = ControlGroup(*address)
            with contextlib.suppress(OSError):
                self._group.entrance.write_text(str(os.getpid()), encoding="ascii")
        excess_bytes = int(limit_bytes * _EXCESS_SHARE) + _EXCESS_BYTES + (0 if has_helper else _HELPER_BYTES)
        self._set_limit(self._group.used_bytes() + limit_bytes + excess_bytes)

    def _set_limit(self, limit_bytes: int | None) -> None:
        if self._group is not None:
            with contextlib.suppress(OSError):
                self._group.set_limit(limit_bytes)
                self._is_held = limit_bytes is not None
