"""The record of what the watchdog did to a block, and why."""

from __future__ import annotations

from typing import Literal

import msgspec

from pytest_membudget.units import format_size


class Bite(msgspec.Struct, frozen=True, kw_only=True):
    """The watchdog stopped a block, or killed a child of it. Sizes are bytes.

    `peak_bytes` is what the block had added, `total_bytes` what the whole tree held; `limit_of` says which of the two
    was above `limit_bytes`. `stack` tells what the threads were doing (see `stacks`).
    """

    kind: Literal["stopped", "child-killed"]
    label: str
    peak_bytes: int
    total_bytes: int
    limit_bytes: int
    limit_of: Literal["block", "tree"] = "block"
    pid: int
    name: str = ""
    stack: str = ""
    source: Literal["helper", "inside"] = "helper"

    def __str__(self) -> str:
        what = (
            f"its child {self.name or 'process'} ({self.pid}) was killed"
            if self.kind == "child-killed"
            else "it was stopped"
        )
        took = f"{self.label or 'the block'} took {format_size(self.peak_bytes)} while it ran"
        holds = f"the whole tree holds {format_size(self.total_bytes)}"
        limit = format_size(self.limit_bytes)
        if self.limit_of == "block":
            return f"{took} ({holds}), more than the {limit} it may take: {what}"
        return f"{took}, and {holds}, more than the {limit} it may hold: {what}"
