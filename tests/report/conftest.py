"""The sample reports, for every test of this room."""

import pytest
from sample_report import HOSTILE, MIB, full_report, record

from pytest_membudget.records.report import Report


@pytest.fixture
def report():
    return full_report()


@pytest.fixture
def hostile_report():
    return Report(
        tests=tuple(
            record(
                nodeid,
                10 + index,
                outcome="failed",
                verdict="over",
                budget_bytes=MIB,
                message=f"over: {nodeid}",
            )
            for index, nodeid in enumerate(HOSTILE)
        ),
        caveats=tuple(HOSTILE),
    )
