"""`--membudget-report[=PATH]`: the one option whose value may be left out, and that may be given more than once."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

FLAG = "--membudget-report"
ENDINGS = (".md", ".json", ".html")


class ReportAction(argparse.Action):
    """Takes the following word only where it can be a report; any other word stays a test path."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        """Called by argparse for each `--membudget-report`."""
        word = str(values or "")
        reports = [*(getattr(namespace, self.dest, None) or [])]
        if word and not is_report(word):
            # argparse hands these words on as positional arguments, which are pytest's test paths.
            left = argparse._UNRECOGNIZED_ARGS_ATTR  # noqa: SLF001 - no public way
            namespace.__dict__.setdefault(left, []).append(word)
            word = ""
        setattr(namespace, self.dest, [*reports, word])


def mend_arguments(args: list[str]) -> None:
    """Writes `--membudget-report tests` as `--membudget-report= tests`, so that test paths keep their order.

    Raises:
        pytest.UsageError: a path is written with `=`, so that it can only be a report, and has another ending.
    """
    for place, (word, following) in enumerate(pairwise([*args, ""])):
        if word == FLAG and following and not is_report(following):
            args[place] = f"{FLAG}="
        path = word.removeprefix(f"{FLAG}=")
        if path != word and path and not is_report(path):
            raise pytest.UsageError(f"{FLAG}: {_unknown_form(path)}")


def read_paths(words: Sequence[str], folder: Path) -> tuple[Path, ...] | None:
    """Paths of the reports; the ini file says `true` for the tables alone and `false` for none.

    Raises:
        ValueError: a path has another ending.
    """
    if [word.lower() for word in words] == ["false"]:
        return None
    paths = [word for word in words if word and word.lower() != "true"]
    wrong = next((path for path in paths if not is_report(path)), None)
    if wrong is not None:
        raise ValueError(_unknown_form(wrong))
    return tuple(folder / path for path in paths)


def is_report(word: str) -> bool:
    """Whether the ending is one that a report can have."""
    return word.lower().endswith(ENDINGS)


def _unknown_form(path: str) -> str:
    return f"{path!r} names no known form; write a path that ends in .md, .json or .html"
