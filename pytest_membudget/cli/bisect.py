"""`membudget bisect TEST GOOD BAD`: the commit since which a test uses more."""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
from pathlib import Path

from pytest_membudget.errors import MeasurementError, UsageError
from pytest_membudget.gate.revisions.bisect import bisect
from pytest_membudget.gate.revisions.git import (
    commit_of,
    commits_between,
    find_repository,
    subject_of,
    working_folder,
)
from pytest_membudget.gate.revisions.runs import Asked, prepared_side
from pytest_membudget.records.comparison import Bisection
from pytest_membudget.records.storage import encode_json
from pytest_membudget.report.text import clean_text
from pytest_membudget.units import format_count, format_size

EXIT_NOT_FOUND = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's options."""
    parser.add_argument("test", metavar="TEST", help="its node id, such as tests/test_load.py::test_load")
    parser.add_argument("good", metavar="GOOD", help="a revision that used less")
    parser.add_argument("bad", metavar="BAD", help="a later revision that uses more")
    parser.add_argument(
        "words", nargs="*", default=[], metavar="ARGUMENTS", help="more of pytest's arguments, after --"
    )
    parser.add_argument(
        "--setup",
        default="",
        metavar="COMMAND",
        help="run this at each commit first, such as a build of extensions",
    )
    parser.add_argument("--json", action="store_true", help="the commit and all runs as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Prints the commit; 1 where both ends cannot be told apart.

    Raises:
        UsageError: no such revisions, or pytest cannot run there.
    """
    repository = find_repository(Path.cwd())
    good, bad = (commit_of(repository, name) for name in (arguments.good, arguments.bad))
    commits = [good, *commits_between(repository, good, bad)]
    if len(commits) < 2:
        raise UsageError(f"{arguments.good} and {arguments.bad} are the same commit")
    asked = Asked([arguments.test, *arguments.words], shlex.split(arguments.setup))
    # Ended by a CI service, it removes its folders as after Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with working_folder() as folder:
        sides = {}

        def measure(commit: str) -> int | None:
            if commit not in sides:
                sides[commit] = prepared_side(repository, commit, folder / commit, asked=asked, progress=_say)
            try:
                peaks = sides[commit].run(None, seed=1)
            except UsageError:
                return None  # it cannot be collected at this commit: skipped, as git bisect does
            if len(peaks) > 1:
                raise UsageError(
                    f"{arguments.test} is {len(peaks)} tests; name one of them, such as {next(iter(peaks))}"
                )
            return next(iter(peaks.values()), None)

        try:
            found = bisect(commits, measure)
        except MeasurementError as error:
            print(f"membudget bisect: {error}", file=sys.stderr)
            return EXIT_NOT_FOUND
    subject = clean_text(subject_of(repository, found.commit))
    if arguments.json:
        document = {**_fields(found), "nodeid": arguments.test, "subject": subject}
        sys.stdout.write(encode_json(document).decode())
    else:
        print(_shown(found, subject, len(commits) - 1))
    return 0


def _fields(found: Bisection) -> dict[str, object]:
    return {name: getattr(found, name) for name in found.__struct_fields__}


def _shown(found: Bisection, subject: str, commits: int) -> str:
    change = (found.after_bytes - found.before_bytes) / found.before_bytes if found.before_bytes else 0.0
    lines = [
        f"{found.commit} {subject}",
        f"  {format_size(found.before_bytes)} before it, {format_size(found.after_bytes)} with it ({100 * change:+.1f}%)",
        f"  found among {format_count(commits, 'commit')} in {format_count(found.runs, 'run')}",
        *(f"  note: {caveat}" for caveat in found.caveats),
    ]
    return "\n".join(lines)


def _say(text: str) -> None:
    print(f"membudget bisect: {text}", file=sys.stderr, flush=True)
