"""What test projects use is imported once."""

import importlib

import pytest

# Imported once here: pytester forgets what a test project has imported, and would import it again for the next one.
for _name in (
    "jinja2",
    "psutil",
    "tabulate",
    "pytest_membudget.gate.history",
    "pytest_membudget.measurement.growth.check",
    "pytest_membudget.plugin.baseline_gate",
    "pytest_membudget.plugin.fresh.isolate",
    "pytest_membudget.plugin.fresh.memray",
    "pytest_membudget.plugin.registration",
    "pytest_membudget.plugin.scales",
    "pytest_membudget.report.html",
    "pytest_membudget.report.terminal",
):
    importlib.import_module(_name)


@pytest.fixture(autouse=True)
def _only_this_plugin(only_this_plugin): ...
