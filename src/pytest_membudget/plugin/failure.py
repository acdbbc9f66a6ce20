"""The failure of a test that took too much: a message and no traceback, since no line of the test raised it."""

from __future__ import annotations

from typing import Any

import pytest
from _pytest.outcomes import Failed

from pytest_membudget.errors import OverBudgetError


class OverBudget(OverBudgetError, Failed):  # noqa: N818 - this is what pytest prints; its base ends in Error
    """Fails the test with the judgement's text; `xfail(raises=OverBudgetError)` expects it."""

    # As pytest does for its own outcomes, so that the summary line has room for both numbers.
    __module__ = "builtins"

    def __init__(self, message: str) -> None:
        Failed.__init__(self, message, pytrace=False)


def tell_shortly(report: Any, item: pytest.Item, failure: OverBudget) -> None:
    """Gives pytest's short summary the bare message, and `--tb=line` the test's own line instead of the plugin's."""
    crash = getattr(report.longrepr, "reprcrash", None)
    if crash is not None:
        path, line, _ = item.reportinfo()
        crash.path, crash.lineno, crash.message = str(path), (line or 0) + 1, failure.msg
