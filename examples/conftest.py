"""What the example tests share."""

from __future__ import annotations

from collections.abc import Callable

import parsers
import pytest

from pytest_membudget import SyntheticFile


@pytest.fixture(autouse=True)
def _libraries_are_loaded(synthetic_file: Callable[..., SyntheticFile]) -> None:
    """Imports take memory too, but not the parser's: each library is used once before anything is measured."""
    parsers.pandas_totals(synthetic_file("10 kB", kind="csv").path)
    parsers.html_filing(synthetic_file("10 kB", kind="html").path)
