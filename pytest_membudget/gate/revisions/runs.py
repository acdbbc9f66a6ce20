"""Sessions of pytest at two revisions, each in a fresh process: what each test used, and how they compare."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from pytest_membudget.errors import MembudgetError, MissingExtraError, UsageError
from pytest_membudget.gate.revisions.compare import (
    DEFAULT_ERROR_RATE,
    REVISIONS_TOLERANCE,
    Comparing,
    with_stacks,
)
from pytest_membudget.gate.revisions.git import (
    Checkout,
    Repository,
    check_out,
    commit_of,
    find_repository,
    import_roots,
)
from pytest_membudget.gate.revisions.stacks import compare_stacks
from pytest_membudget.measurement.fresh import launcher, stack_recorder
from pytest_membudget.measurement.fresh.memray_run import read_stacks
from pytest_membudget.records.comparison import RevisionComparison
from pytest_membudget.records.report import COUNTED, read_report
from pytest_membudget.records.storage import working_folder
from pytest_membudget.units import Tolerance

#: What a project's configuration may ask for and a comparison must not do.
_OVERRIDES = [
    word for name in ("baseline", "history", "report", "memray_dir") for word in ("-o", f"membudget_{name}=")
]
_PASSED, _FAILED, _NO_TESTS = 0, 1, 5
_LAST_WORDS = 1500
#: A child may be another Python, without this package.
_IN_EVERY_INTERPRETER = """\
try:
    import pytest_membudget.measurement.fresh.stack_recorder
except ImportError:
    pass
"""


class Side:
    """One revision, ready to run tests of it."""

    def __init__(
        self, repository: Repository, checkout: Checkout, arguments: Sequence[str], folder: Path
    ) -> None:
        """Runs pytest with `arguments`; paths below the working checkout mean those of this one."""
        self.checkout = checkout
        self._repository = repository
        self._arguments = [self._own_path(word) for word in arguments]
        self._roots = import_roots(repository, checkout, sys.path)
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def prepare(self, command: Sequence[str]) -> None:
        """Compiles the project, so that no run pays for that, and runs the user's own `command`, if there is one.

        Raises:
            UsageError: that command failed.
        """
        self._launch([sys.executable, "-m", "compileall", "-q", "."], seed=0)
        if command and self._launch(command, seed=0) != 0:
            raise UsageError(
                f"the setup command failed at {self.checkout.name}: {' '.join(command)}\n{self._last_words()}"
            )

    def run(self, nodeids: Sequence[str] | None, seed: int) -> Mapping[str, int]:
        """The peaks of all tests, or of `nodeids`, in a fresh process; of those that passed.

        Raises:
            UsageError: pytest could not run the tests at this revision.
        """
        report = self._folder / "report.json"
        report.unlink(missing_ok=True)
        code = self._pytest(nodeids, [f"--membudget-report={report}", "--membudget-warn"], seed=seed)
        if nodeids is None and (code not in {_PASSED, _FAILED} or not report.exists()):
            found = "no test was collected" if code == _NO_TESTS else f"pytest ended with exit code {code}"
            raise UsageError(f"{found} at {self.checkout.name}:\n{self._last_words()}")
        if not report.exists():
            return {}
        tests = read_report(report).tests
        return {
            test.nodeid: test.peak_bytes
            for test in tests
            if test.peak_bytes is not None and test.outcome in COUNTED
        }

    def record(self, nodeids: Sequence[str], folder: Path) -> Mapping[str, Path]:
        """Runs tests under memray, their children too; the folder of each one's recordings."""
        start = folder / "start"
        start.mkdir(parents=True)
        # Python imports this module in every interpreter that a test starts.
        (start / "sitecustomize.py").write_text(_IN_EVERY_INTERPRETER, encoding="utf-8")
        variables = {
            stack_recorder.FOLDER: str(folder),
            "PYTHONPATH": os.pathsep.join([str(start), *self._path()]),
        }
        options = [
            "-p",
            "pytest_membudget.plugin.fresh.memray",
            "-p",
            "no:memray",
            "-p",
            "no:membudget",
        ]
        self._pytest(nodeids, options, seed=0, variables=variables)
        return {nodeid: stack_recorder.folder_of(folder, nodeid) for nodeid in nodeids}

    def _pytest(
        self,
        nodeids: Sequence[str] | None,
        options: Sequence[str],
        *,
        seed: int,
        variables: Mapping[str, str] | None = None,
    ) -> int:
        what = self._arguments
        if nodeids is not None:
            # Any number of tests, which a command line could not hold.
            chosen = self._folder / "chosen.txt"
            chosen.write_text("".join(f"{self._target(nodeid)}\n" for nodeid in nodeids), encoding="utf-8")
            what = [*self._options(), f"@{chosen}"]
        words = [sys.executable, "-m", "pytest", *what, "-p", "no:cacheprovider", *_OVERRIDES, *options]
        return self._launch(words, seed=seed, variables=variables)

    def _launch(self, words: Sequence[str], *, seed: int, variables: Mapping[str, str] | None = None) -> int:
        environment = {
            **os.environ,
            # The same order of sets and dictionaries on both sides of a pair.
            "PYTHONHASHSEED": os.environ.get("PYTHONHASHSEED", str(seed)),
            "PYTHONPATH": os.pathsep.join(self._path()),
            **(variables or {}),
        }
        with self._output.open("wb") as output:
            ending = launcher.run(
                words,
                cwd=self.checkout.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        return ending.exit_code

    def _path(self) -> list[str]:
        return [*self._roots, *filter(None, [os.environ.get("PYTHONPATH")])]

    @property
    def _output(self) -> Path:
        return self._folder / "output.txt"

    def _last_words(self) -> str:
        return last_lines(self._output.read_bytes(), _LAST_WORDS)

    def _own_path(self, word: str) -> str:
        place = Path(word.partition("::")[0])
        if not place.is_absolute() or not place.is_relative_to(self._repository.top):
            return word
        return str(self.checkout.top / place.relative_to(self._repository.top)) + word[len(str(place)) :]

    def _options(self) -> list[str]:
        """The arguments that name no test, since one test is named instead."""
        return [
            word
            for word in self._arguments
            if word.startswith("-") or not (self.checkout.folder / word.partition("::")[0]).exists()
        ]

    def _target(self, nodeid: str) -> str:
        """The test as an argument: its file is named from pytest's root, which is this folder or one above it."""
        file, colons, rest = nodeid.partition("::")
        folder = self.checkout.folder
        for root in (folder, *folder.parents):
            if (root / file).exists():
                return f"{root / file}{colons}{rest}"
            if root == self.checkout.top:
                break
        return nodeid


def last_lines(output: bytes, most_bytes: int) -> str:
    """Whole lines at the end of what a program has said; the end of the last one where that is longer."""
    said = output.strip()
    if len(said) > most_bytes:
        said = said[-most_bytes:].partition(b"\n")[2] or said[-most_bytes:]
    return said.decode(errors="replace")


Progress = Callable[[str], None]


class RunRequest(NamedTuple):
    """How tests are run: pytest's arguments, and a command that prepares a checkout."""

    arguments: Sequence[str] = ()
    setup: Sequence[str] = ()


def compare_revisions(
    base: str,
    head: str,
    request: RunRequest,
    *,
    tolerance: Tolerance = REVISIONS_TOLERANCE,
    error_rate: float = DEFAULT_ERROR_RATE,
    budget_s: float | None = None,
    stacks: bool = True,
    progress: Progress = lambda _: None,
) -> RevisionComparison:
    """Runs the tests at both revisions until each is clear. The checkout that is worked in is not written to.

    Args:
        base: the revision to compare with, as git understands it.
        head: the revision that is judged.
        request: what to run.
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
    with working_folder("revisions") as folder:
        sides = [
            prepared_side(repository, name, folder / side, request=request, progress=progress)
            for name, side in ((base, "base"), (head, "head"))
        ]
        found = Comparing(
            *sides, tolerance=tolerance, error_rate=error_rate, budget_s=budget_s, progress=progress
        ).compare()
        if stacks:
            found = _explained(found, sides, folder, progress)
    return msgspec.structs.replace(found, base=commits[0], head=commits[1], base_name=base, head_name=head)


def prepared_side(
    repository: Repository, name: str, folder: Path, *, request: RunRequest, progress: Progress
) -> Side:
    """One revision, checked out and compiled."""
    progress(f"checking out {name}")
    checkout = check_out(repository, name, commit_of(repository, name), folder / "checkout")
    side = Side(repository, checkout, request.arguments, folder / "runs")
    side.prepare(request.setup)
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
