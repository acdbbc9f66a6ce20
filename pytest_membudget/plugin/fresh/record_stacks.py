"""A plugin for one run: records who allocates while the test is called, for `membudget compare --revisions`."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from pytest_membudget.measurement.fresh import stack_recorder


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """The call alone, as it is measured: not what fixtures allocate before it."""
    with stack_recorder.recording_test(item.nodeid):
        return (yield)
