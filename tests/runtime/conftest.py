"""Scripted memory and clocks, and a place of its own for what is shared with other programs."""

import pytest
from hypothesis import settings
from scripted import ScriptedClock, ScriptedMemory

settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


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
