"""The two hooks that other plugins and conftest files may implement."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_membudget.records.report import TestRecord
    from pytest_membudget.records.scale import Scale


@pytest.hookspec
def pytest_membudget_measured(config: pytest.Config, record: TestRecord) -> None:
    """Called once for each test that was measured, after its teardown, with its final outcome.

    Under pytest-xdist it is called in the controller.
    """


@pytest.hookspec
def pytest_membudget_scales(config: pytest.Config, scales: dict[str, Scale]) -> None:
    """Called once, before tests are collected: add to `scales` or replace in it, by name."""
