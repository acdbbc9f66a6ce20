"""`--membudget-memray`: runs a failing test again under memray, in a fresh interpreter, and says who allocated."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Generator, Iterator, Sequence
from itertools import takewhile
from pathlib import Path

import pytest

from pytest_membudget.errors import MembudgetError
from pytest_membudget.measurement.fresh import stack_recorder
from pytest_membudget.measurement.fresh.memray_run import emptied, read_captures
from pytest_membudget.plugin.fresh.run import run_fresh
from pytest_membudget.plugin.running_test import RunningTest
from pytest_membudget.records.report import AllocationSite, Attribution
from pytest_membudget.records.storage import working_folder
from pytest_membudget.units import format_size

_LONGEST_NAME = 150  # where file systems take 255 bytes
_MOST_FRAMES_SHOWN = 4
_LEAST_SHARE = 0.01
"""A stack that held less than this share of the peak explains nothing."""
_CALLS_THE_TEST = ("pytest_pyfunc_call ", "_callTestMethod ", "runtest ")


def attribute(
    test: RunningTest, directory: Path | None, peak_bytes: int
) -> tuple[tuple[AllocationSite, ...], str]:
    """The call stacks that held the heap at its peak, and the text about them; never raises for want of a capture.

    `peak_bytes` is what the test was found to take: a stack that held less than 1% of it is left out, since it is mostly pytest's.
    """
    if directory is not None:
        return _attribute(test, directory / folder_name(test.plan.nodeid), peak_bytes, keep=True)
    with working_folder("memray") as folder:
        return _attribute(test, folder, peak_bytes, keep=False)


def folder_name(nodeid: str) -> str:
    """A folder's name that tells the test and is its own: two tests may differ only in what a name cannot have."""
    plain = nodeid.replace("::", "-").replace("/", "-")
    name = re.sub(r"[^\w.-]+", "-", plain, flags=re.ASCII)[-_LONGEST_NAME:].strip("-")
    return name if name == plain else f"{name}-{hashlib.sha256(nodeid.encode()).hexdigest()[:8]}"


def _attribute(
    test: RunningTest, folder: Path, peak_bytes: int, *, keep: bool
) -> tuple[tuple[AllocationSite, ...], str]:
    capture, flame_graph = emptied(folder)
    test.stop_clock()
    run = run_fresh(test, "memray", memray_capture=str(capture))
    try:
        found = read_captures(capture, flame_graph if keep else None)
    except (MembudgetError, OSError) as error:
        reason = run.death.splitlines()[0] if run.death else str(error)
        return (), f"  who       memray could not tell: {reason}"
    sites = tuple(
        AllocationSite(_own_frames(site), site.heap_bytes, site.allocations)
        for site in found.sites
        if site.heap_bytes >= _LEAST_SHARE * peak_bytes
    )
    return sites, "\n".join(_lines(found, sites, keep=keep))


def _lines(found: Attribution, sites: Sequence[AllocationSite], *, keep: bool) -> Iterator[str]:
    held = f"its heap at the peak was {format_size(found.heap_bytes)}"
    if sites:
        yield f"  who       run again under memray; {held}, held by"
    else:
        yield f"  who       run again under memray; {held}, and no line held 1% of what was measured"
        yield "            memray sees this process alone: where a child used most, measure what was started"
    for site in sites:
        yield f"            {format_size(site.heap_bytes):>8}  {' < '.join(site.stack[:_MOST_FRAMES_SHOWN])}"
    yield f"            {found.note}"
    for caveat in found.caveats:
        yield f"  note      {caveat}"
    if keep:
        yield f"            capture: {found.capture}"
        yield f"            flame graph: {found.flame_graph}"


def _own_frames(site: AllocationSite) -> tuple[str, ...]:
    """The stack up to the test's own function; as it is where it is pytest's."""
    own = takewhile(lambda frame: not frame.startswith(_CALLS_THE_TEST), site.stack)
    return tuple(own) or site.stack


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """The call alone, as it is measured: not what fixtures allocate before it."""
    with stack_recorder.recording_test(item.nodeid):
        return (yield)
