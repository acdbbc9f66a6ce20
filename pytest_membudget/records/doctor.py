"""What a machine can measure, and why."""

from __future__ import annotations

from typing import Literal

import msgspec

from pytest_membudget.records.report import Environment

Quality = Literal["exact", "bounded", "sampled", "missing", "note"]


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at: how good figures are because of it, what was found, and why that matters."""

    subject: str
    quality: Quality
    found: str
    why: str


class DoctorReport(msgspec.Struct, frozen=True, kw_only=True):
    """All findings, those that matter most first, and where they were made."""

    findings: tuple[Finding, ...]
    environment: Environment
