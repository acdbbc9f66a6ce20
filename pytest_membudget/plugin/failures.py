"""Failures that are a message and no traceback, since no line of the test raised them."""

from __future__ import annotations

from typing import Any, NoReturn

import pytest
from _pytest.outcomes import Failed

from pytest_membudget.errors import IsolatedCrashError, OverBudgetError
from pytest_membudget.records.places import from_here


class OverBudget(OverBudgetError, Failed):  # noqa: N818 - this is what pytest prints; its base ends in Error
    """The test took too much; `xfail(raises=OverBudgetError)` expects it."""

    def __init__(self, message: str) -> None:
        Failed.__init__(self, message, pytrace=False)


class IsolatedCrash(IsolatedCrashError, Failed):  # noqa: N818 - likewise
    """The test's own interpreter died; `xfail(raises=IsolatedCrashError)` expects it."""

    def __init__(self, message: str) -> None:
        Failed.__init__(self, message, pytrace=False)


def fail_at_test(item: pytest.Item, message: str) -> NoReturn:
    """Raises `OverBudget` from a frame at the test's first line: its own are gone, and `--pdb` opens in the last one.

    Raises:
        OverBudget: always.
    """
    file, line, _ = item.reportinfo()
    message += f"\n\n{from_here(file)}:{(line or 0) + 1}: {OverBudget.__name__}"
    blank_lines = "\n" * (line or 0)
    code = compile(f"{blank_lines}raise over_budget", str(file), "exec").replace(co_name=item.name)
    names = vars(item.module) if hasattr(item, "module") else {}
    exec(code, names, {"over_budget": OverBudget(message)})  # noqa: S102 - the line above, among the test's names
    raise AssertionError("unreachable")


def tell_shortly(report: Any, item: pytest.Item, failure: BaseException) -> None:
    """Gives the short summary and `--tb=line` the first line of the message, at the test's own place."""
    crash = getattr(report.longrepr, "reprcrash", None)
    if isinstance(failure, OverBudget | IsolatedCrash) and crash is not None:
        path, line, _ = item.reportinfo()
        crash.path, crash.lineno = str(path), (line or 0) + 1
        crash.message = (failure.msg or "").partition("\n")[0]
