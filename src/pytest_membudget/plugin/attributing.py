"""`--membudget-memray`: runs a failing test again under memray, in a fresh interpreter, and says who allocated."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_membudget.errors import MembudgetError
from pytest_membudget.measurement.attribution import read_captures
from pytest_membudget.plugin.fresh import run_fresh
from pytest_membudget.records.report import AllocationSite, Attribution
from pytest_membudget.units import format_size

ASKED = "run this test with --membudget-memray"
_MOST_FRAMES_SHOWN = 4


def attribute(item: pytest.Item, directory: Path | None) -> tuple[tuple[AllocationSite, ...], str]:
    """The call stacks that held the heap at its peak, and the text about them; never raises for want of a capture."""
    if directory is not None:
        kept = directory / re.sub(r"[^\w.-]+", "-", item.nodeid)[-150:].strip("-")
        kept.mkdir(parents=True, exist_ok=True)
        return _attribute(item, kept, keep=True)
    with tempfile.TemporaryDirectory(prefix="membudget-memray-") as folder:
        return _attribute(item, Path(folder), keep=False)


def _attribute(item: pytest.Item, folder: Path, *, keep: bool) -> tuple[tuple[AllocationSite, ...], str]:
    capture = folder / "capture.bin"
    run = run_fresh(item, "memray", memray_capture=str(capture))
    try:
        found = read_captures(capture, folder / "flamegraph.html" if keep else None)
    except (MembudgetError, OSError) as error:
        reason = run.death.splitlines()[0] if run.death else str(error)
        return (), f"  who       memray could not tell: {reason}"
    return found.sites, "\n".join(_lines(found, keep=keep))


def _lines(found: Attribution, *, keep: bool) -> Iterator[str]:
    yield f"  who       run again under memray; its heap at the peak was {format_size(found.heap_bytes)}, held by"
    for site in found.sites:
        stack = " < ".join(site.stack[:_MOST_FRAMES_SHOWN])
        yield f"            {format_size(site.heap_bytes):>8}  {stack}"
    yield f"            {found.note}"
    for caveat in found.caveats:
        yield f"  caveat    {caveat}"
    if keep:
        yield f"            capture: {found.capture}"
        yield f"            flame graph: {found.flame_graph}"
