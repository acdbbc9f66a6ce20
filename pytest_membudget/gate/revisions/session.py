"""From two names of revisions to a comparison: checkouts, runs, and the stacks of what regressed."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from pytest_membudget.errors import MembudgetError, MissingExtraError
from pytest_membudget.gate.revisions.compare import (
    DEFAULT_ERROR_RATE,
    REVISIONS_TOLERANCE,
    Comparing,
    with_stacks,
)
from pytest_membudget.gate.revisions.git import (
    Repository,
    check_out,
    commit_of,
    find_repository,
    working_folder,
)
from pytest_membudget.gate.revisions.runs import Side
from pytest_membudget.gate.revisions.stacks import compare_stacks
from pytest_membudget.measurement.fresh.stack_reader import read_stacks
from pytest_membudget.records.comparison import RevisionComparison
from pytest_membudget.units import Tolerance

Progress = Callable[[str], None]


class Asked(NamedTuple):
    """How tests are run: pytest's arguments, and a command that prepares a checkout."""

    arguments: Sequence[str] = ()
    setup: Sequence[str] = ()


def compare_revisions(
    base: str,
    head: str,
    asked: Asked,
    *,
    tolerance: Tolerance = REVISIONS_TOLERANCE,
    error_rate: float = DEFAULT_ERROR_RATE,
    budget_s: float | None = None,
    stacks: bool = True,
    progress: Progress = lambda _: None,
) -> RevisionComparison:
    """Runs the tests at both revisions until each is clear. The checkout that is worked in is not written to.

    Args:
        base: the revision to hold against, as git understands it.
        head: the revision that is judged.
        asked: what to run.
        tolerance: a change within it is none.
        error_rate: the most that any unchanged test of the suite is called with.
        budget_s: no pair of runs is begun that would end later.
        stacks: whether to run what regressed once more under memray.
        progress: is called with what happens next.

    Raises:
        UsageError: no such revision, or pytest cannot run at one of them.
    """
    repository = find_repository(Path.cwd())
    commits = commit_of(repository, base), commit_of(repository, head)
    with working_folder() as folder:
        sides = [
            prepared_side(repository, name, folder / side, asked=asked, progress=progress)
            for name, side in ((base, "base"), (head, "head"))
        ]
        found = Comparing(
            *sides, tolerance=tolerance, error_rate=error_rate, budget_s=budget_s, progress=progress
        ).compare()
        if stacks:
            found = _explained(found, sides, folder, progress)
    return msgspec.structs.replace(found, base=commits[0], head=commits[1], base_name=base, head_name=head)


def prepared_side(
    repository: Repository, name: str, folder: Path, *, asked: Asked, progress: Progress
) -> Side:
    """One revision, checked out and compiled."""
    progress(f"checking out {name}")
    checkout = check_out(repository, name, commit_of(repository, name), folder / "checkout")
    side = Side(repository, checkout, asked.arguments, folder / "runs")
    side.prepare(asked.setup)
    return side


def _explained(
    found: RevisionComparison, sides: Sequence[Side], folder: Path, progress: Progress
) -> RevisionComparison:
    """With the stacks that grew in what regressed."""
    regressed = [test.nodeid for test in found.tests if test.verdict == "regressed"]
    if not regressed:
        return found
    if importlib.util.find_spec("memray") is None:
        missing = str(MissingExtraError("naming the stacks that grew", "memray", "memray"))
        return msgspec.structs.replace(found, caveats=(*found.caveats, missing))
    progress("who allocates it")
    base, head = sides
    old, new = base.record(regressed, folder / "base-stacks"), head.record(regressed, folder / "head-stacks")
    tops = base.checkout.top, head.checkout.top
    tests = []
    for test in found.tests:
        if test.verdict == "regressed":
            try:
                stacks = read_stacks(old[test.nodeid]), read_stacks(new[test.nodeid])
            except (MembudgetError, OSError) as error:
                caveat = f"who allocates it is not known: {error}"
                tests.append(msgspec.structs.replace(test, caveats=(*test.caveats, caveat)))
                continue
            tests.append(with_stacks(test, compare_stacks(*stacks, *tops, grew_bytes=test.change_bytes or 0)))
        else:
            tests.append(test)
    return msgspec.structs.replace(found, tests=tuple(tests))
