"""`membudget retry DEAD_LETTERS MODULE:FUNCTION`: runs inputs that failed once more."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pytest_membudget.cli import EXIT_FAILED, EXIT_OK
from pytest_membudget.errors import UsageError, text_of
from pytest_membudget.records.run import BatchResult
from pytest_membudget.runtime.executor import dead_letters as letters_file
from pytest_membudget.runtime.executor.executor import FallbackExecutor
from pytest_membudget.runtime.executor.policy import ExecutorPolicy


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("dead_letters", type=Path, help="the file that ExecutorPolicy(dead_letters=…) named")
    parser.add_argument(
        "function",
        metavar="MODULE:FUNCTION",
        help="the function that failed; found from the current directory",
    )
    parser.add_argument(
        "--workers", type=int, default=None, help="tasks at once; as many as fit when not given"
    )
    parser.add_argument("--budget", default=None, help='what all may take together, such as "4 GB"')
    parser.add_argument(
        "--timeout", type=float, default=None, metavar="SECONDS", help="what one input may take"
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs each input again; those that succeed leave the file. 0 when all did, 1 when some failed again."""
    name = arguments.function
    module_name, colon, path = name.partition(":")
    if not (module_name and colon and path):
        raise UsageError(f"{name!r} is not MODULE:FUNCTION; write it as in package.module:function")
    letters = letters_file.read(arguments.dead_letters)
    foreign = sorted({letter.function for letter in letters} - {name})
    if foreign:
        raise UsageError(
            f"{arguments.dead_letters} holds inputs of {', '.join(foreign)}, not of {name}; name that function, "
            "or keep one file for each"
        )
    function = _imported(module_name, path)
    items = [letters_file.item_of(letter) for letter in letters]
    # Worker processes however few there are: what killed its worker once would end this program in a thread.
    policy = ExecutorPolicy(timeout_s=arguments.timeout, small_batch=0)
    with FallbackExecutor(arguments.workers, budget=arguments.budget, policy=policy) as executor:
        batch = executor.run(function, items)
    failed = [
        letters_file.letter_of(function, outcome, name=name) for outcome in batch.outcomes if not outcome.ok
    ]
    letters_file.replace(arguments.dead_letters, letters, failed)
    _tell(batch, arguments.dead_letters)
    return EXIT_FAILED if failed else EXIT_OK


def _imported(module_name: str, path: str) -> Callable[[Any], Any]:
    """The function that the shell named; the current directory comes first, as with `python -m`."""
    name = f"{module_name}:{path}"
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        found: Any = importlib.import_module(module_name)
        for part in path.split("."):
            found = getattr(found, part)
    except Exception as error:  # the user's module may raise anything while it is imported
        raise UsageError(f"{name} cannot be imported: {error}") from error
    if not callable(found):
        raise UsageError(f"{name} is a {type(found).__name__}, not a function")
    function: Callable[[Any], Any] = found
    return function


def _tell(batch: BatchResult, path: Path) -> None:
    again = sum(outcome.ok for outcome in batch.outcomes)
    print(f"{again} of {len(batch.outcomes)} inputs succeeded")
    for outcome in batch.dead_letters:
        print(f"  {outcome.item!r}: {outcome.cause}: {text_of(outcome.error)}")
    if batch.dead_letters:
        print(f"the others stay in {path}")
