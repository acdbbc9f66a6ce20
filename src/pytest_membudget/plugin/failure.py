"""Failures that are a message and no traceback, since no line of the test raised them."""

from __future__ import annotations

from typing import Any

import pytest
from _pytest.outcomes import Failed

from pytest_membudget.errors import IsolatedCrashError, OverBudgetError


class OverBudget(OverBudgetError, Failed):  # noqa: N818 - this is what pytest prints; its base ends in Error
    """The test took too much; `xfail(raises=OverBudgetError)` expects it."""

    def __init__(self, message: str) -> None:
        Failed.__init__(self, message, pytrace=False)


class IsolatedCrash(IsolatedCrashError, Failed):  # noqa: N818 - likewise
    """The test's own interpreter died; `xfail(raises=IsolatedCrashError)` expects it."""

    def __init__(self, message: str) -> None:
        Failed.__init__(self, message, pytrace=False)


def tell_shortly(report: Any, item: pytest.Item, failure: BaseException | None) -> None:
    """Gives pytest's short summary the bare message, and `--tb=line` the test's own line instead of the plugin's."""
    crash = getattr(report.longrepr, "reprcrash", None)
    if isinstance(failure, OverBudget | IsolatedCrash) and crash is not None:
        path, line, _ = item.reportinfo()
        crash.path, crash.lineno, crash.message = str(path), (line or 0) + 1, failure.msg
