"""Scripted memory and clocks, and a place of its own for what is shared with other programs."""

import pytest
from hypothesis import settings
from scripted import ScriptedClock, ScriptedMemory

from dask_cluster import DaskCluster

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


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    """Two workers of different size, each with a nanny that starts it anew; it takes seconds, so all tests share it.

    A test before may have killed one: where both are needed, wait for `all_workers`.
    """
    cluster = DaskCluster(tmp_path_factory.mktemp("dask"))
    try:
        cluster.add_worker("350 MB")
        cluster.add_worker("700 MB")
        yield cluster
    finally:
        assert not cluster.close()
