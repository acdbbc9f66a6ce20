"""What every test may use."""

import signal

import pytest
from hypothesis import settings

from pytest_membudget.measurement import probe
from pytest_membudget.measurement.tree.helper.shared_memory import SharedReading

pytest_plugins = ["pytester"]
LONG = {"test_documents.py", "test_consumer.py"}
# How long an example takes depends on what else the machine does, and on what is imported in it. What has to pass tries the same
# examples everywhere; `make test-all` looks for others.
settings.register_profile("same", deadline=None, derandomize=True)
settings.register_profile("others", deadline=None)
settings.load_profile("same")


@pytest.fixture(autouse=True)
def _other_programs_share_nothing(request, monkeypatch):
    """Shared memory that programs beside the tests make meanwhile is in no figure, but for tests that are about it."""
    if request.path.name != "test_shared_memory.py":
        monkeypatch.setattr(probe._shared, "read", SharedReading)


@pytest.fixture
def only_this_plugin(monkeypatch):
    """Test projects load this plugin alone, whatever else is installed; a test that needs another one names it."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTEST_PLUGINS", "pytest_membudget.plugin")
    monkeypatch.setenv("COLUMNS", "200")
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY", "PYTEST_ADDOPTS", "PYTEST_XDIST_WORKER"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def alone_with_shared_memory(tmp_path_factory):
    """For a test that fills shared memory, which is in upper figures of the tests beside it (pytest-xdist)."""
    yield from _locked(tmp_path_factory, "LOCK_EX")


@pytest.fixture
def beside_no_shared_memory(tmp_path_factory):
    """For a test that starts programs which show exact figures: none of `alone_with_shared_memory` runs meanwhile."""
    yield from _locked(tmp_path_factory, "LOCK_SH")


def _locked(tmp_path_factory, kind):
    fcntl = pytest.importorskip("fcntl", reason="shared memory is known on Linux only")
    with (tmp_path_factory.getbasetemp().parent / "shared-memory.lock").open("w") as lock:
        fcntl.flock(lock, getattr(fcntl, kind))
        yield


def pytest_configure() -> None:
    """A shell that runs the tests in the background has Ctrl-C ignored, which every program that a test starts inherits."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Real figures first: the tests of `measurement` know what a small process without other children takes.

    Later the process has grown by hundreds of megabytes and has a fork server and its like beside it. Then what takes longest
    alone: of two processes that share the tests, one would end long before the other.
    """
    items.sort(key=_turn)


def _turn(item: pytest.Item) -> int:
    rooms = item.path.parts
    if "measurement" not in rooms:
        return 3 if item.path.name in LONG else 4
    # Trees first: what a small process adds. Leaks last: they are looked for in large libraries, which stay loaded.
    # Single readings count every page that is mapped, those of code that runs for the first time as well.
    is_early = "tree" in rooms and item.path.name != "test_readings.py"
    return 0 if is_early else 2 if "growth" in rooms else 1
