"""The committed baseline: read, made from a run, written so that a diff shows only what changed; and where it was taken.

Memory figures depend on the Python, the C library and the kernel, so a baseline says which it was taken with.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from pytest_membudget.errors import UnreadableFileError, UsageError
from pytest_membudget.gate.comparison import DEFAULT_TOLERANCE, base_peak, direction, fresh_reference
from pytest_membudget.gate.matching import match_baseline
from pytest_membudget.records.report import Environment, Report, TestRecord, encode_report, read_report
from pytest_membudget.records.storage import write_atomically
from pytest_membudget.stats.samples import median
from pytest_membudget.units import Tolerance

_DIGITS = 4
_COUNTED = {"passed", "xfailed", "xpassed"}


def load_baseline(path: str | os.PathLike[str]) -> Report:
    """The baseline at `path`.

    Raises:
        FileNotFoundError: there is none.
        UnreadableFileError: it is not a baseline, truncated, of a newer version, or holds impossible values.
    """
    baseline = read_report(path, what="a membudget baseline")
    if baseline.kind != "baseline":
        raise UnreadableFileError(
            f'{path} is a report of kind "{baseline.kind}", not a baseline; '
            "make one with --membudget-update-baseline, or compare two reports with: membudget compare"
        )
    return baseline


def make_baseline(
    report: Report,
    previous: Report | None = None,
    *,
    tolerance: Tolerance = DEFAULT_TOLERANCE,
    is_gone: Callable[[str], bool] = lambda _: True,
) -> Report:
    """The baseline that `report` justifies, in the order of the node ids.

    A test that has not changed beyond the tolerance keeps its previous record, so that noise makes no diff; one
    that was skipped, failed or not run keeps it too. In a foreign environment every measured record is new;
    the baseline is of the environment in which most of its records were taken.
    """
    environment = _comparable(report.environment)
    old = previous or Report(kind="baseline")
    matching = match_baseline(old, report.tests, is_gone=is_gone, tolerance=tolerance)
    foreign = bool(environment_differences(old.environment, environment))
    gone = set(matching.gone)
    kept = {record.nodeid: record for record in old.tests if record.nodeid not in gone}
    for old_name, new_name in matching.renamed:
        kept[new_name] = msgspec.structs.replace(kept.pop(old_name), nodeid=new_name)
    for test in report.tests:
        if test.peak_bytes is None or test.outcome not in _COUNTED:
            continue
        before = kept.get(test.nodeid)
        if before is None or foreign or _changed(before, test, tolerance):
            kept[test.nodeid] = _slim(test)
    tests = tuple(kept[nodeid] for nodeid in sorted(kept))
    if foreign and 2 * len(carried_over(tests, report)) > len(tests):
        environment = old.environment
    return Report(kind="baseline", environment=environment, tests=tests)


def update_baseline(
    path: str | os.PathLike[str],
    report: Report,
    *,
    tolerance: Tolerance = DEFAULT_TOLERANCE,
    is_gone: Callable[[str], bool] = lambda _: True,
) -> Report:
    """Writes the baseline that `report` justifies beside the file's other tests, and returns it.

    Sessions that end at once come one after the other, and each keeps what the others wrote.

    Raises:
        UnreadableFileError: the file is no baseline.
        OSError: it cannot be written.
    """
    with _one_at_a_time(path):
        try:
            previous = load_baseline(path)
        except FileNotFoundError:
            previous = None
        made = make_baseline(report, previous, tolerance=tolerance, is_gone=is_gone)
        save_baseline(made, path)
    return made


@contextlib.contextmanager
def _one_at_a_time(path: str | os.PathLike[str]) -> Iterator[None]:
    """Holds the folder of `path`, where the system has such locks: the file itself is replaced, and a lock would go with it."""
    if sys.platform == "win32":
        yield
        return
    import fcntl

    descriptor = os.open(Path(path).resolve().parent, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def carried_over(tests: Sequence[TestRecord], report: Report) -> tuple[str, ...]:
    """Those of a baseline's tests that `report` has no figures of."""
    taken = {test.nodeid for test in report.tests if test.peak_bytes is not None and test.outcome in _COUNTED}
    return tuple(test.nodeid for test in tests if test.nodeid not in taken)


def save_baseline(baseline: Report, path: str | os.PathLike[str]) -> None:
    """Writes `baseline`, one test a line; after a crash the file is the old one or the new one.

    Raises:
        OSError: the folder is missing, not writable or full.
    """
    write_atomically(path, encode_report(baseline, omit_defaults=True))


def _changed(before: TestRecord, test: TestRecord, tolerance: Tolerance) -> bool:
    if direction(base_peak(before), base_peak(test), tolerance) != "same":
        return True
    if len(test.samples_bytes) > len(before.samples_bytes):
        return True
    if not test.samples_bytes:
        return False
    return direction(fresh_reference(before), median(test.samples_bytes), tolerance) != "same"


def _slim(test: TestRecord) -> TestRecord:
    """What a comparison needs of `test`, with sizes rounded to four digits."""
    return TestRecord(
        nodeid=test.nodeid,
        outcome="passed",
        peak_bytes=_rounded(test.peak_bytes),
        peak_upper_bytes=_rounded(test.peak_upper_bytes),
        total_peak_bytes=_rounded(test.total_peak_bytes),
        retained_bytes=_rounded(test.retained_bytes),
        source=test.source,
        isolated=test.isolated,
        samples_bytes=_sorted_rounded(test.samples_bytes),
    )


def _sorted_rounded(samples_bytes: Sequence[int]) -> tuple[int, ...]:
    return tuple(sorted(_rounded(sample) or 0 for sample in samples_bytes))


def _rounded(size_bytes: int | None) -> int | None:
    """Four digits: an error of at most 0.05%, far inside any tolerance, that a reader can take in."""
    if size_bytes is None:
        return None
    return round(size_bytes, min(0, _DIGITS - len(str(abs(size_bytes)))))


def _comparable(environment: Environment) -> Environment:
    """What a comparison looks at: no limit, which differs from day to day on shared machines, and no patch release."""
    return msgspec.structs.replace(
        environment, kernel=major_and_minor(environment.kernel), limit_bytes=0, limit_source=""
    )


_MAJOR_AND_MINOR = re.compile(r"\d+\.\d+")
_MOST_NAMED = 3


def environment_differences(base: Environment, here: Environment) -> tuple[str, ...]:
    """In words, each way in which `here` differs from `base`; what one of them does not know is not compared.

    Kernels and Pythons are compared by major and minor version: a patch release moves no peak. The limit is
    left out, since it does not change what a test takes.
    """
    pairs: list[tuple[str, object, object]] = [
        ("system", base.system, here.system),
        ("machine", base.machine, here.machine),
        ("kernel", major_and_minor(base.kernel), major_and_minor(here.kernel)),
        ("Python", major_and_minor(base.python), major_and_minor(here.python)),
        ("libc", base.libc, here.libc),
        ("page size", base.page_size_bytes, here.page_size_bytes),
        ("huge pages", base.transparent_hugepages, here.transparent_hugepages),
        ("cores", base.cores, here.cores),
        *((name, base.packages[name], here.packages.get(name, "none")) for name in sorted(base.packages)),
    ]
    told = [
        f"{title} {_short(old)} there, {_short(new)} here"
        for title, old, new in pairs
        if old and new and old != new
    ]
    if base.system and here.system and base.allocator != here.allocator:
        told.append(
            f"allocator settings {_short(base.allocator or 'none')} there, {_short(here.allocator or 'none')} here"
        )
    return tuple(told)


def check_environment(
    base: Environment, here: Environment, *, path: str, strict: bool = False
) -> tuple[str, ...]:
    """The differences, as caveats for a comparison.

    Raises:
        UsageError: there are some, and `strict` refuses a foreign baseline.
    """
    differences = environment_differences(base, here)
    if differences and strict:
        raise UsageError(
            f"the baseline {path} is from another environment ({in_short(differences)}), which --membudget-strict refuses; "
            "take one here with --membudget-update-baseline, or drop --membudget-strict"
        )
    return differences


def in_short(differences: tuple[str, ...]) -> str:
    """The first differences and how many more there are, in one line."""
    named = "; ".join(differences[:_MOST_NAMED])
    more = len(differences) - _MOST_NAMED
    return f"{named}; and {more} more" if more > 0 else named


def major_and_minor(version: str) -> str:
    """The first two numbers of a version; the text itself where it has none."""
    match = _MAJOR_AND_MINOR.search(version)
    return match[0] if match else version


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."
