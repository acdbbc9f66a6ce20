"""Test projects load this plugin alone, whatever else is installed; a test that needs another one names it."""

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
def only_this_plugin(monkeypatch):
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTEST_PLUGINS", "pytest_membudget.plugin")
    monkeypatch.setenv("COLUMNS", "200")
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY", "PYTEST_ADDOPTS", "PYTEST_XDIST_WORKER"):
        monkeypatch.delenv(name, raising=False)
