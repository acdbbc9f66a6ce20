"""Which test of a run is which test of the baseline: new, gone, renamed, skipped and not run are told apart."""

from __future__ import annotations

import difflib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from pytest_membudget.gate.comparison import DEFAULT_TOLERANCE, base_peak, direction
from pytest_membudget.records.report import Report, TestRecord
from pytest_membudget.units import Tolerance

_LEAST_LIKENESS = 0.6
_MOST_CANDIDATES = 30
"""Where more tests of a file changed their names, which became which is not known."""


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
