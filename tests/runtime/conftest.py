"""Scripted memory and clocks, and a place of its own for what is shared with other programs."""

from pathlib import Path

import pytest
from scripted import ScriptedClock, ScriptedMemory

from pytest_membudget.measurement.system.machine import MemoryPressure
from pytest_membudget.runtime.admission import budgets


@pytest.fixture(autouse=True)
def no_pressure(monkeypatch):
    """A machine that is short of memory while tests run would hold starts up, and say so in `events`."""
    calm = MemoryPressure(Path("no-such-root"))
    monkeypatch.setattr(budgets, "memory_pressure", lambda: calm)


@pytest.fixture
def memory():
    return ScriptedMemory()


@pytest.fixture
def clock():
    return ScriptedClock()


@pytest.fixture
def host_directory(tmp_path, monkeypatch):
    """A place of its own for the host's budgets, here and in the programs that a test starts."""
    monkeypatch.setenv("MEMBUDGET_HOST_DIRECTORY", str(tmp_path / "host"))
    return tmp_path / "host"
