"""One host: the budget that its programs share, as `membudget host` and `membudget run` show it, and what `doctor` found."""

from __future__ import annotations

from typing import Literal

import msgspec

from pytest_membudget.records import Bytes
from pytest_membudget.records.measurement import CommandMeasurement
from pytest_membudget.records.report import Environment


class HostRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One request: granted, or waiting in the order of the list."""

    pid: int
    label: str
    #: what was asked for
    bytes: Bytes
    #: what it was last seen to hold; 0 where that is not known or not more than it asked for
    resident_bytes: Bytes
    granted: bool
    exclusive: bool
    #: since it was asked for
    age_s: float


class HostStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One budget of the host at one instant."""

    name: str
    #: what may be granted together now
    budget_bytes: Bytes
    #: the smallest budget among the programs that take part
    ceiling_bytes: Bytes
    reserved_bytes: Bytes
    #: programs that take part, whether they hold anything or not
    programs: int
    #: whether admission is closed because tasks stall for want of memory
    is_stalled: bool
    #: the pressure file that says so; empty where the kernel has none
    pressure_source: str
    requests: tuple[HostRequest, ...] = ()

    @property
    def holders(self) -> tuple[HostRequest, ...]:
        """Those that were granted."""
        return tuple(request for request in self.requests if request.granted)

    @property
    def waiters(self) -> tuple[HostRequest, ...]:
        """Those that wait, the first in the queue first."""
        return tuple(request for request in self.requests if not request.granted)


class CommandRun(msgspec.Struct, frozen=True, kw_only=True):
    """A command that ran inside a lease of the host's budget, as `membudget run --json` writes it."""

    measurement: CommandMeasurement
    reserved_bytes: Bytes
    #: for its whole tree; `None` where there was none
    limit_bytes: Bytes | None
    #: until the memory came free
    waited_s: float

    @property
    def exit_code(self) -> int:
        """What a shell would say."""
        return self.measurement.exit_code


Quality = Literal["exact", "bounded", "sampled", "missing", "note"]


class Finding(msgspec.Struct, frozen=True):
    """One thing that was tried: how good figures are because of it, what was found, and why that matters."""

    subject: str
    quality: Quality
    found: str
    why: str


class DoctorReport(msgspec.Struct, frozen=True, kw_only=True):
    """All findings, those that matter most first, and where they were made."""

    findings: tuple[Finding, ...]
    environment: Environment
