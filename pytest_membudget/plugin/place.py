"""Where a test is written, as its records say it."""

from __future__ import annotations

import pytest


def file_and_line(item: pytest.Item) -> tuple[str, int | None]:
    """The test's file as pytest shows it, and its line counted from 1; `None` where pytest knows no line."""
    file, line, _ = item.location
    return file, None if line is None else line + 1
