"""`membudget learn FILE…`: calibrations from what Nextflow, Snakemake or Slurm recorded of finished jobs."""

from __future__ import annotations

import argparse
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from pytest_membudget.calibration.law import LEAST_POINTS
from pytest_membudget.calibration.other_systems import calibrate_recorded, read_recording
from pytest_membudget.calibration.store import calibration_path, save_named
from pytest_membudget.cli import EXIT_FAILED, EXIT_OK
from pytest_membudget.records.calibration import RecordedJob
from pytest_membudget.report.text import clean_text
from pytest_membudget.units import format_count, format_size

_MOST_NAMED = 5
_UNFIT = re.compile(r"[^A-Za-z0-9._-]+", re.ASCII)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's options."""
    parser.add_argument(
        "files",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="a Nextflow trace, a Snakemake benchmark file, or the output of sacct --parsable2",
    )
    parser.add_argument(
        "--save",
        metavar="NAME",
        help="keep each kind of job in .membudget/calibrations/NAME-KIND.json; NAME.json where there is one kind",
    )


def run(arguments: argparse.Namespace) -> int:
    """Prints what each kind of job took, and keeps the calibrations; 1 where no kind has enough jobs."""
    if arguments.save:
        calibration_path(arguments.save)  # a bad name is said before anything is read
    kinds: dict[str, list[RecordedJob]] = defaultdict(list)
    caveats: dict[str, None] = {}
    skipped = 0
    for path in arguments.files:
        recording = read_recording(path)
        skipped += recording.skipped
        caveats |= dict.fromkeys(recording.caveats)
        for job in recording.jobs:
            kinds[job.kind].append(job)
    learned = {kind: jobs for kind, jobs in sorted(kinds.items()) if len(jobs) >= LEAST_POINTS}
    for kind, jobs in learned.items():
        found = calibrate_recorded(kind, jobs, tuple(caveats))
        highest = max(job.peak_bytes for job in jobs)
        follows = (
            f"{found.gamma:.2f} B/B of what it reads + {format_size(found.overhead_bytes)}"
            if found.predictors
            else f"about {format_size(found.overhead_bytes)} for any input"
        )
        print(
            f"{clean_text(kind)}: {format_count(len(jobs), 'job')}, at most {format_size(highest)}; {follows}"
        )
        if arguments.save:
            name = (
                arguments.save
                if len(learned) == 1
                else f"{arguments.save}-{_UNFIT.sub('-', kind).strip('-.')}"
            )
            print(f"  saved to {save_named(found, name)}")
    few = {kind: len(jobs) for kind, jobs in sorted(kinds.items()) if kind not in learned}
    for note in (*_notes(few, skipped), *caveats):
        print(f"note: {note}")
    if not kinds:
        print(
            f"note: no finished job with a peak in {', '.join(clean_text(str(path)) for path in arguments.files)}"
        )
    return EXIT_OK if learned else EXIT_FAILED


def _notes(few: Mapping[str, int], skipped: int) -> Iterator[str]:
    """What was read and did not become a calibration; `few` are the jobs of kinds that have too few."""
    for kind, count in list(few.items())[:_MOST_NAMED]:
        yield (
            f"{clean_text(kind)} has {format_count(count, 'job')}, and a calibration needs {LEAST_POINTS}; give "
            "the records of more runs as well"
        )
    if len(few) > _MOST_NAMED:
        yield f"and {format_count(len(few) - _MOST_NAMED, 'more kind')} of job with fewer than {LEAST_POINTS}"
    if skipped:
        yield f"{format_count(skipped, 'row')} without a finished job and its peak"
