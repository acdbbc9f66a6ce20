"""Where a batch puts its failed inputs as they fail."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pytest_membudget.records.run import Outcome
from pytest_membudget.runtime.executor import dead_letters

_logger = logging.getLogger("pytest_membudget.runtime")


class LetterBox:
    """Adds to a file of dead letters, if there is one. A disk that is full costs letters, and no outcome."""

    def __init__(self, path: Path | None, fn: Callable[..., Any]) -> None:
        self._path = path
        self._fn = fn
        self._lost = 0
        self._why = ""

    def check(self) -> None:
        """Fails now rather than after an hour of work.

        Raises:
            UsageError: no line can be added there.
        """
        if self._path is not None:
            dead_letters.check_writable(self._path)

    def put(self, outcome: Outcome) -> None:
        """Adds an input that failed; one that was cancelled was never tried."""
        if self._path is None or outcome.ok or outcome.cause == "cancelled":
            return
        try:
            dead_letters.append(self._path, dead_letters.letter_of(self._fn, outcome))
        except OSError as error:
            self._why = error.strerror or str(error)
            if not self._lost:
                _logger.warning("dead letters: %s cannot be written: %s", self._path, self._why)
            self._lost += 1

    @property
    def path(self) -> str | None:
        """The file's."""
        return None if self._path is None else str(self._path)

    @property
    def caveats(self) -> tuple[str, ...]:
        """What is missing in the file."""
        if not self._lost:
            return ()
        told = (
            f"{self._lost} failed inputs could not be added to {self._path} ({self._why}); "
            "they are in the batch's dead_letters, and nowhere else"
        )
        return (told,)
