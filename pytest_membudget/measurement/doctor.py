"""What can be measured here, exactly or not, and why: each answer is tried, not assumed."""

from __future__ import annotations

import importlib.metadata
import mmap
import os
import sys
from collections.abc import Callable
from pathlib import Path

from pytest_membudget.measurement.process import heap, high_water, proc, reclaim
from pytest_membudget.measurement.system import control_group, machine
from pytest_membudget.measurement.system.machine import memory_reading
from pytest_membudget.measurement.tree import sampler
from pytest_membudget.records.report import DoctorReport, Finding, Quality
from pytest_membudget.units import format_count, format_size

TRIAL_BYTES = 16 * 1024 * 1024
PAGES_PER_BATCH = 32
"""The kernel's counters of resident pages are kept per core and summed up in batches of at least this many."""


def doctor() -> DoctorReport:
    """Tries everything that figures rest on (about 0.1 s)."""
    checks: list[Callable[[], Finding]] = [
        _own_peak,
        _tree,
        _shared_memory,
        _hidden_processes,
        _limit,
        _control_groups,
        _trimming,
        _attribution,
        _huge_pages,
        _counters,
    ]
    return DoctorReport(findings=tuple(check() for check in checks), environment=machine.environment())


def _own_peak() -> Finding:
    mark = high_water.open_mark()
    if mark is None:
        reason = (
            "no /proc/self/clear_refs" if sys.platform == "linux" else f"{sys.platform} cannot reset its mark"
        )
        return Finding(
            "peak of one process",
            "sampled",
            reason,
            "spikes between two readings are missed; isolate=True sees them",
        )
    with mmap.mmap(-1, TRIAL_BYTES) as block:
        for offset in range(0, TRIAL_BYTES, mmap.PAGESIZE):
            block[offset] = 1
    seen = high_water.close_mark(mark) - mark.start_bytes
    found = f"a spike of {format_size(TRIAL_BYTES)} was seen as {format_size(seen)}"
    quality: Quality = "exact" if abs(seen - TRIAL_BYTES) < 1024 * 1024 else "sampled"
    return Finding(
        "peak of one process", quality, found, "the kernel's own high-water mark, reset before each block"
    )


def _tree() -> Finding:
    helper = sampler.sampler()
    if helper is None:
        return Finding(
            "process trees", "sampled", sampler.why_not(), "children are sampled from inside, and less often"
        )
    return Finding(
        "process trees",
        "bounded",
        f"the helper process runs ({helper.pid})",
        "children are read every 2 to 10 ms; page faults bound what came and went between two readings",
    )


def _shared_memory() -> Finding:
    subject = "memory shared by processes"
    if proc.read("self", "smaps_rollup"):
        return Finding(subject, "bounded", "smaps_rollup can be read", "each shared page counts once")
    return Finding(
        subject,
        "sampled",
        "smaps_rollup cannot be read",
        "forked children: the largest is proven, the sum is the upper figure",
    )


def _hidden_processes() -> Finding:
    subject = "other processes"
    if sys.platform != "linux":
        return Finding(subject, "note", "no /proc", "psutil lists processes")
    for mount in proc.mounts():
        if mount.kind == "proc" and "hidepid=" in mount.options and "hidepid=0" not in mount.options:
            return Finding(
                subject, "note", "hidepid is set", "children of another user, such as sudo's, are not seen"
            )
    return Finding(subject, "note", "all are visible", "children of any user are seen")


def _limit() -> Finding:
    reading = memory_reading()
    found = f"{format_size(reading.limit.bytes)} ({reading.limit.source}), {format_size(reading.available_bytes)} free"
    return Finding("memory limit", "note", found, "the least of host memory, control groups and RLIMIT_AS")


def _control_groups() -> Finding:
    members = control_group.groups(Path("/"))
    if not members:
        return Finding("control groups", "note", "none is mounted", "the host's memory is the limit")
    versions = " and ".join(str(version) for version in sorted({group.version for group in members}))
    limits = len(list(control_group.constraints(members)))
    found = f"version {versions}, {len(members)} above this process, {limits} of them with a limit"
    return Finding("control groups", "note", found, "the tightest one counts, page cache is not used memory")


def _trimming() -> Finding:
    subject = "what ran before"
    if not heap.trim_heap():
        return Finding(subject, "missing", "psutil.heap_trim is missing", "freed memory may be reused unseen")
    kept = reclaim.kept_small_blocks_bytes()
    return Finding(
        subject,
        "exact",
        f"freed memory is given back; Python keeps {format_size(kept)} of free small blocks",
        "a test takes the same first, last or after others; a measurement says what it could reuse",
    )


def _attribution() -> Finding:
    subject = "who allocated it"
    try:
        version = importlib.metadata.version("memray")
    except importlib.metadata.PackageNotFoundError:
        return Finding(
            subject,
            "missing",
            "memray is not installed",
            "--membudget-memray cannot name who allocated; run: pip install 'pytest-membudget[memray]'",
        )
    return Finding(subject, "note", f"memray {version}", "heap, not resident memory: the two differ")


def _huge_pages() -> Finding:
    setting = machine.transparent_hugepages() or "none"
    why = (
        "one touched byte may make 2 MiB resident"
        if setting == "always"
        else "only memory that asks for them (numpy does) comes in pieces of 2 MiB"
        if setting == "madvise"
        else "memory comes in pages"
    )
    return Finding("huge pages", "note", setting, why)


def _counters() -> Finding:
    cores = os.cpu_count() or 1
    # https://docs.kernel.org/filesystems/proc.html: values of RSS are not precise; three counters make it up.
    slack_bytes = 3 * cores * max(PAGES_PER_BATCH, 2 * cores) * proc.PAGE_BYTES
    return Finding(
        "precision of the kernel's counters",
        "note",
        f"up to {format_size(slack_bytes)} with {format_count(cores, 'core')}",
        "they are kept per core; recent kernels sum them up when asked, older ones may be off by so much",
    )
