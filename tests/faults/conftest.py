"""Random faults. The numbers follow from one seed; with MEMBUDGET_FAULT_SEED=… it is another one, as in `make test-all`."""

import os
import random

import pytest

SEED = int(os.environ.get("MEMBUDGET_FAULT_SEED", "1"))


@pytest.fixture
def chance(request):
    """Random numbers of this test's own."""
    return random.Random(f"{SEED} {request.node.nodeid}")


def pytest_runtest_makereport(item, call):
    if call.excinfo is not None and "chance" in getattr(item, "fixturenames", ()):
        item.add_report_section("call", "faults", f"MEMBUDGET_FAULT_SEED={SEED}")
