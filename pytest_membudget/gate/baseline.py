"""The committed baseline: read, made from a run, written so that a diff shows only what changed; and where it was taken.

1. Memory figures depend on the Python, the C library and the kernel, so a baseline says which it was taken with.
2. `match_baseline` says which test of a run is which of the baseline: new, gone, renamed, skipped and not run are distinguished.
3. `compare_reports` compares two reports or baselines as they are, without measuring again.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from pytest_membudget.errors import UnreadableFileError, UsageError
from pytest_membudget.gate.comparison import DEFAULT_TOLERANCE, base_peak, direction, fresh_reference
from pytest_membudget.records.comparison import ReportComparison, Summary, TestChange
from pytest_membudget.records.report import (
    COUNTED,
    Environment,
    Report,
    TestRecord,
    encode_report,
    major_and_minor,
    read_report,
)
from pytest_membudget.records.storage import write_atomically
from pytest_membudget.stats.samples import (
    geometric_mean,
    mann_whitney_p,
    median,
    median_interval,
    samples_for_interval,
    samples_needed,
    smallest_p,
)
from pytest_membudget.units import Tolerance

_DIGITS = 4

_LEAST_LIKENESS = 0.6
_MOST_CANDIDATES = 30
"""Where more tests of a file changed their names, which became which is not known."""


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
        if test.peak_bytes is None or test.outcome not in COUNTED:
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
    taken = {test.nodeid for test in report.tests if test.peak_bytes is not None and test.outcome in COUNTED}
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
        samples_bytes=tuple(sorted(_rounded(sample) or 0 for sample in test.samples_bytes)),
    )


def _rounded(size_bytes: int | None) -> int | None:
    """Four digits: an error of at most 0.05%, far inside any tolerance, that a reader can compare at a glance."""
    if size_bytes is None:
        return None
    return round(size_bytes, min(0, _DIGITS - len(str(abs(size_bytes)))))


def _comparable(environment: Environment) -> Environment:
    """What a comparison uses: no limit, which differs from day to day on shared machines, and no patch release."""
    return msgspec.structs.replace(
        environment, kernel=major_and_minor(environment.kernel), limit_bytes=0, limit_source=""
    )


_MOST_NAMED = 3


def environment_differences(base: Environment, here: Environment) -> tuple[str, ...]:
    """In words, each way in which `here` differs from `base`."""
    return tuple(
        f"{what} {_short(there)} there, {_short(now)} here" for what, there, now in base.differences(here)
    )


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


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."


class Matching(NamedTuple):
    """`pairs` maps each measured test to its record in the baseline; the rest has no partner to compare."""

    pairs: dict[str, TestRecord]
    new: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    renamed: tuple[tuple[str, str], ...] = ()
    skipped: tuple[str, ...] = ()
    not_run: tuple[str, ...] = ()


def match_baseline(
    baseline: Report,
    tests: Sequence[TestRecord],
    *,
    is_gone: Callable[[str], bool] = lambda _: True,
    tolerance: Tolerance = DEFAULT_TOLERANCE,
) -> Matching:
    """Pairs `tests` with the baseline's records by node id, then by likely renaming.

    `is_gone(nodeid)`: a missing test would have been collected if it still existed. Where only a part of
    the tests was asked for (a path, `-k`, one job of several) the others were not run, and are not called gone.
    """
    known = {record.nodeid: record for record in baseline.tests if record.peak_bytes is not None}
    present = {test.nodeid: test for test in tests}
    measured = {nodeid: test for nodeid, test in present.items() if test.peak_bytes is not None}
    pairs = {nodeid: known[nodeid] for nodeid in measured if nodeid in known}
    new = [nodeid for nodeid in measured if nodeid not in known]
    missing = [nodeid for nodeid in known if nodeid not in present]
    gone = [nodeid for nodeid in missing if is_gone(nodeid)]
    all_gone = set(gone)
    renamed = _renamed([known[nodeid] for nodeid in gone], [measured[nodeid] for nodeid in new], tolerance)
    for old, now in renamed:
        pairs[now] = known[old]
    old_names, new_names = {old for old, _ in renamed}, {now for _, now in renamed}
    return Matching(
        pairs=pairs,
        new=tuple(nodeid for nodeid in new if nodeid not in new_names),
        gone=tuple(nodeid for nodeid in gone if nodeid not in old_names),
        renamed=tuple(renamed),
        skipped=tuple(nodeid for nodeid in known if nodeid in present and nodeid not in measured),
        not_run=tuple(nodeid for nodeid in missing if nodeid not in all_gone),
    )


def _renamed(
    gone: Sequence[TestRecord], new: Sequence[TestRecord], tolerance: Tolerance
) -> list[tuple[str, str]]:
    """Pairs of old and new name that point at each other alone, either moved or renamed in place."""
    moved = _moved([old.nodeid for old in gone], [now.nodeid for now in new])
    return _pairs_of_one([*moved, *_renamed_in_place(gone, new, tolerance)])


def moved_tests(gone: Sequence[str], new: Sequence[str]) -> dict[str, str]:
    """From the new to the old name of each test of which only the file is another one."""
    return {now: old for old, now in _pairs_of_one([*_moved(gone, new)])}


def _pairs_of_one(candidates: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    old_counts = Counter(old for old, _ in candidates)
    new_counts = Counter(now for _, now in candidates)
    return [pair for pair in candidates if old_counts[pair[0]] == 1 == new_counts[pair[1]]]


def _moved(gone: Sequence[str], new: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The same function in another file."""
    by_name: defaultdict[str, list[str]] = defaultdict(list)
    for now in new:
        by_name[_function(now)].append(now)
    for old in gone:
        same = by_name.get(_function(old), [])
        if len(same) <= _MOST_CANDIDATES:
            yield from ((old, name) for name in same)


def _renamed_in_place(
    gone: Sequence[TestRecord], new: Sequence[TestRecord], tolerance: Tolerance
) -> Iterator[tuple[str, str]]:
    """A similar name with a similar peak in the same file."""
    by_file: defaultdict[str, list[TestRecord]] = defaultdict(list)
    for now in new:
        by_file[_file(now)].append(now)
    for old in gone:
        others = by_file.get(_file(old), [])
        if len(others) > _MOST_CANDIDATES:
            continue
        for now in others:
            close = direction(base_peak(old), base_peak(now), tolerance) == "same"
            if close and _alike(_function(old.nodeid), _function(now.nodeid)):
                yield old.nodeid, now.nodeid


def _alike(old_name: str, new_name: str) -> bool:
    return difflib.SequenceMatcher(None, old_name, new_name, autojunk=False).ratio() >= _LEAST_LIKENESS


def _file(test: TestRecord) -> str:
    return test.nodeid.partition("::")[0]


def _function(nodeid: str) -> str:
    return nodeid.partition("::")[2]


INTERVAL_CONFIDENCE = 0.95
TWO_SIDED_LEVEL = 0.05
"""Two-sided, as benchstat has it: a reader looks at one table, where a gate judges every suite."""


def compare_reports(
    base: Report,
    new: Report,
    tolerance: Tolerance = DEFAULT_TOLERANCE,
    *,
    base_path: str = "base",
    new_path: str = "new",
    tolerance_text: str = "10% + 1 MiB",
) -> ReportComparison:
    """Every test of both, in the order of `new`.

    A change is called where the medians lie further apart than the tolerance and, where both sides have enough
    samples, the two-sided rank test agrees at the 5% level. Samples from fresh processes are used where both
    sides have them, else the one measurement of each.
    """
    matching = match_baseline(base, new.tests, tolerance=tolerance)
    tests = {test.nodeid: test for test in new.tests}
    rows = tuple(_test_change(old, tests[nodeid], tolerance) for nodeid, old in matching.pairs.items())
    ratios = [row.new.median_bytes / row.base.median_bytes for row in rows if row.base.median_bytes]
    return ReportComparison(
        base_path=base_path,
        new_path=new_path,
        tolerance=tolerance_text,
        rows=rows,
        geomean_ratio=geometric_mean([ratio for ratio in ratios if ratio > 0]),
        new=matching.new,
        gone=matching.gone,
        skipped=matching.skipped,
        foreign=environment_differences(base.environment, new.environment),
        caveats=_comparison_caveats(rows),
    )


def _test_change(old: TestRecord, now: TestRecord, tolerance: Tolerance) -> TestChange:
    fresh = bool(old.samples_bytes and now.samples_bytes)
    before = old.samples_bytes if fresh else (old.peak_bytes or 0,)
    after = now.samples_bytes if fresh else (now.peak_bytes or 0,)
    base_bytes = round(median(before))
    finding = direction(base_bytes, median(after), tolerance)
    p = None
    if 2 * smallest_p(len(before), len(after)) <= TWO_SIDED_LEVEL:
        p = mann_whitney_p(before, after)
        if p > TWO_SIDED_LEVEL:
            finding = "same"
    return TestChange(
        nodeid=now.nodeid,
        base=_summary(before),
        new=_summary(after),
        allowed_bytes=tolerance.allowed_bytes(base_bytes),
        finding=finding,
        p=p,
        renamed_from=old.nodeid if old.nodeid != now.nodeid else "",
    )


def _summary(samples_bytes: Sequence[int]) -> Summary:
    low, high = median_interval(samples_bytes, INTERVAL_CONFIDENCE) or (None, None)
    return Summary(
        median_bytes=median(samples_bytes), samples=len(samples_bytes), low_bytes=low, high_bytes=high
    )


def _comparison_caveats(rows: Sequence[TestChange]) -> tuple[str, ...]:
    found = []
    fewest = min(
        (min(row.base.samples, row.new.samples) for row in rows),
        default=samples_for_interval(INTERVAL_CONFIDENCE),
    )
    if fewest < samples_for_interval(INTERVAL_CONFIDENCE):
        found.append(
            f"an interval for the median at {INTERVAL_CONFIDENCE:.0%} needs {samples_for_interval(INTERVAL_CONFIDENCE)} samples; "
            f"some tests have {fewest}"
        )
    untested = [row for row in rows if row.p is None]
    if untested:
        least = min(min(row.base.samples, row.new.samples) for row in untested)
        needed = next(
            count for count in range(1, 20) if (samples_needed(count, TWO_SIDED_LEVEL / 2) or 99) <= count
        )
        found.append(
            f"{len(untested)} judged by the tolerance alone: a rank test needs {needed} samples on both sides, "
            f"there are as few as {least}"
        )
    return tuple(found)
