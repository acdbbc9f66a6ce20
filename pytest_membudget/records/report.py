"""A test session's figures: one record a test, the tables beside them, where they were taken; and that as a file."""

from __future__ import annotations

import os
import re
from typing import Annotated, Any, Literal

import msgspec

from pytest_membudget.errors import UnreadableFileError
from pytest_membudget.records import Bytes, Count, Seconds, SignedBytes
from pytest_membudget.records.judgement import Growth, HeldByFixture, RetainedByTest, Verdict
from pytest_membudget.records.measurement import ProcessShare, Source, TimelinePoint
from pytest_membudget.records.monitor import MonitorReport
from pytest_membudget.records.run import BatchSummary
from pytest_membudget.records.scale import CurvePoint, InFlightTable, ScaleTable
from pytest_membudget.records.storage import decode_json, encoded, escape_controls, read_bounded

FORMAT = "membudget-report"
VERSION = 1

Outcome = Literal["passed", "failed", "skipped", "xfailed", "xpassed", "error"]

COUNTED: frozenset[Outcome] = frozenset({"passed", "xfailed", "xpassed"})
"""A failing test often stops before its peak: what it used says nothing about one that passes."""


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """What may change a figure from one machine to another. `hosts` are named where it was measured elsewhere."""

    system: str = ""
    kernel: str = ""
    machine: str = ""
    python: str = ""
    libc: str = ""
    allocator: str = ""
    page_size_bytes: Bytes = 0
    transparent_hugepages: str = ""
    cores: Count = 0
    limit_bytes: Bytes = 0
    limit_source: str = ""
    packages: dict[str, str] = {}
    hosts: tuple[str, ...] = ()

    def differences(self, other: Environment) -> list[tuple[str, str, str]]:
        """What may move a figure between this environment and `other`: its name, and how it is in either.

        Kernels and Pythons are compared by major and minor version: a patch release moves no peak. The limit is left out,
        since it does not change what a test takes. What one of them does not know is not compared.
        """
        pairs: list[tuple[str, object, object]] = [
            ("system", self.system, other.system),
            ("machine", self.machine, other.machine),
            ("kernel", major_and_minor(self.kernel), major_and_minor(other.kernel)),
            ("Python", major_and_minor(self.python), major_and_minor(other.python)),
            ("libc", self.libc, other.libc),
            ("page size", self.page_size_bytes, other.page_size_bytes),
            ("huge pages", self.transparent_hugepages, other.transparent_hugepages),
            ("cores", self.cores, other.cores),
            *(
                (name, self.packages[name], other.packages.get(name, "none"))
                for name in sorted(self.packages)
            ),
        ]
        if self.system and other.system:
            pairs.append(("allocator settings", self.allocator or "none", other.allocator or "none"))
        return [(name, str(old), str(new)) for name, old, new in pairs if old and new and old != new]


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


_MAJOR_AND_MINOR = re.compile(r"\d+\.\d+")


def major_and_minor(version: str) -> str:
    """The first two numbers of a version; the text itself where it has none."""
    match = _MAJOR_AND_MINOR.search(version)
    return match[0] if match else version


Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """A test against its baseline; `change` is relative, `p` is absent where no rank test was possible.

    `tolerance` says in words where the allowed size comes from, where it is not the session's own tolerance.
    """

    base_bytes: Bytes
    new_bytes: Bytes
    allowed_bytes: Bytes
    finding: Literal["same", "regressed", "improved", "new", "gone"]
    samples_bytes: tuple[Bytes, ...] = ()
    base_samples_bytes: tuple[Bytes, ...] = ()
    p: Share | None = None
    tolerance: str = ""
    caveats: tuple[str, ...] = ()

    @property
    def change(self) -> float:
        """Relative change of the median; zero where the base is zero."""
        return (self.new_bytes - self.base_bytes) / self.base_bytes if self.base_bytes else 0.0


class AllocationSite(msgspec.Struct, frozen=True):
    """A call stack that held memory at the peak, innermost frame first, in bytes of heap."""

    stack: tuple[str, ...]
    heap_bytes: Bytes
    allocations: Count


class Attribution(msgspec.Struct, frozen=True, kw_only=True):
    """Who held the heap at its peak: the largest call stacks first, and where the whole story is kept.

    `heap_bytes` is all of the heap at that moment. `note` says how heap and resident memory differ.
    """

    sites: tuple[AllocationSite, ...] = ()
    heap_bytes: int = 0
    capture: str = ""
    flame_graph: str = ""
    note: str = ""
    caveats: tuple[str, ...] = ()


class TestRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One measured test. Sizes are bytes; `None` where the figure was not taken.

    `file` (as pytest shows it, with `line` from 1) is where the test stands. `samples_bytes` are peaks of
    the same test in fresh processes, where it was run again.
    """

    __test__ = False

    nodeid: str
    outcome: Outcome
    verdict: Verdict = "none"
    file: str = ""
    line: Count | None = None
    peak_bytes: Bytes | None = None
    peak_upper_bytes: Bytes | None = None
    total_peak_bytes: Bytes | None = None
    retained_bytes: SignedBytes | None = None
    duration_s: Seconds | None = None
    processes: Count | None = None
    source: Source | None = None
    interval_s: Seconds | None = None
    budget_bytes: Bytes | None = None
    budget_total_bytes: Bytes | None = None
    budget_retained_bytes: Bytes | None = None
    isolated: bool = False
    samples_bytes: tuple[Bytes, ...] = ()
    shares: tuple[ProcessShare, ...] = ()
    timeline: tuple[TimelinePoint, ...] = ()
    growth: Growth | None = None
    comparison: Comparison | None = None
    allocations: tuple[AllocationSite, ...] = ()
    message: str = ""
    caveats: tuple[str, ...] = ()


class CalibrationPicture(msgspec.Struct, frozen=True, kw_only=True):
    """A calibration as a reader sees it: measured points as (size, peak) in bytes, and the fitted curve."""

    name: str
    gamma: float
    overhead_bytes: Bytes
    base_bytes: Bytes
    curved: bool
    points: tuple[tuple[Bytes, Bytes], ...] = ()
    curve: tuple[CurvePoint, ...] = ()
    caveats: tuple[str, ...] = ()


class BaselineCheck(msgspec.Struct, frozen=True, kw_only=True):
    """How a session compares with its baseline as a whole; each test's own comparison is in its record.

    `foreign` says in words how the two environments differ; `renamed` holds pairs of old and new node id;
    `not_run` are tests that were not asked for. `accept_command` makes the present figures the baseline.
    """

    path: str
    tolerance: str
    accept_command: str
    foreign: tuple[str, ...] = ()
    new: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    renamed: tuple[tuple[str, str], ...] = ()
    skipped: tuple[str, ...] = ()
    not_run: tuple[str, ...] = ()


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a renderer shows, and what is kept as JSON. A baseline is a report of its own kind.

    `revision` is the commit that was measured, empty where it is not known.
    """

    format: Literal["membudget-report"] = "membudget-report"
    version: Literal[1] = 1
    kind: Literal["report", "baseline"] = "report"
    environment: Environment = Environment()
    tests: tuple[TestRecord, ...] = ()
    scales: tuple[ScaleTable, ...] = ()
    in_flight: tuple[InFlightTable, ...] = ()
    batches: tuple[BatchSummary, ...] = ()
    monitors: tuple[MonitorReport, ...] = ()
    calibrations: tuple[CalibrationPicture, ...] = ()
    baseline: BaselineCheck | None = None
    left_behind: tuple[RetainedByTest, ...] = ()
    fixtures: tuple[HeldByFixture, ...] = ()
    created: str = ""
    revision: str = ""
    caveats: tuple[str, ...] = ()


def read_report(path: str | os.PathLike[str], *, what: str = "a membudget report") -> Report:
    """The report or baseline at `path`; `what` names the expected file in messages.

    Raises:
        FileNotFoundError: there is none.
        UnreadableFileError: it is not a report, truncated, of a newer version, or holds impossible values.
    """
    data = read_bounded(path, what=what)
    parts = decode_json(data, dict[str, msgspec.Raw], name=str(path), what=what)
    header: dict[str, Any] = {
        key: decode_json(bytes(parts[key]), Any, name=f'the "{key}" of {path}', what="a number or text")
        for key in ("format", "version", "kind")
        if key in parts
    }
    if header.get("format") != FORMAT:
        raise UnreadableFileError(
            f'{path} is not {what}: its "format" is {_shown(header.get("format"))}, not "{FORMAT}"; is it the right file?'
        )
    version = header.get("version")
    if isinstance(version, int) and version > VERSION:
        raise UnreadableFileError(
            f"{path} is of version {_shown(version)} and this pytest-membudget reads version {VERSION}; "
            "upgrade pytest-membudget, or write the file again with this one"
        )
    for key in ("version", "kind", "tests"):
        if key not in parts:
            raise UnreadableFileError(f'{path} is not {what}: it has no "{key}"')
    report = decode_json(data, Report, name=str(path), what=what)
    twin = _first_twin([test.nodeid for test in report.tests])
    if twin is not None:
        raise UnreadableFileError(f"{path} is not {what}: it has the test {_shown(twin)} twice")
    return report


def encode_report(report: Report, *, omit_defaults: bool = False) -> bytes:
    """`report` as JSON with one line for each test; `omit_defaults` leaves out what was not taken."""
    fields = _sparse(report) if omit_defaults else _fields_of(report)
    lines = [f"  {_text(key)}: {_value(value)}" for key, value in fields.items()]
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def _fields_of(record: msgspec.Struct) -> dict[str, Any]:
    return {field.name: getattr(record, field.name) for field in msgspec.structs.fields(record)}


def _sparse(report: Report) -> dict[str, Any]:
    always = {"format": report.format, "version": report.version, "kind": report.kind}
    changed = {key: value for key, value in _differing(report).items() if key != "tests"}
    return always | changed | {"tests": [_differing(test) for test in report.tests]}


def _differing(record: msgspec.Struct) -> dict[str, Any]:
    """The fields of `record` that differ from their defaults."""
    found: dict[str, Any] = {}
    for field in msgspec.structs.fields(record):
        value = getattr(record, field.name)
        default = field.default_factory() if callable(field.default_factory) else field.default
        if value != default:
            found[field.name] = (
                _differing(value) if isinstance(value, msgspec.Struct) else msgspec.to_builtins(value)
            )
    return found


def _value(value: Any) -> str:
    if isinstance(value, msgspec.Struct):
        value = _fields_of(value)
    if isinstance(value, dict) and value:
        inner = [f"    {_text(key)}: {_text(item)}" for key, item in value.items()]
        return "{\n" + ",\n".join(inner) + "\n  }"
    if isinstance(value, (list, tuple)) and value:
        return "[\n" + ",\n".join("    " + _text(item) for item in value) + "\n  ]"
    return _text(value)


def _text(value: Any) -> str:
    return escape_controls(encoded(value)).decode()


def _first_twin(names: list[str]) -> str | None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def _shown(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= 80 else text[:77] + "..."
