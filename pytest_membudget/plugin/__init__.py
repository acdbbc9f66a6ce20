"""The plugin: what pytest finds of this package, and hands over to.

1. `options` declares every flag and ini option once; `markers` reads the markers, strictly;
2. once the tests are collected, `plans` makes a frozen plan of what each of them asks for. From then on a test is known by its
   plan; what only its `pytest.Item` can do is asked of one class, `RunningTest`;
3. `measure` measures a test's call phase by one of the `probes`, and `judging` holds that against all that the test asks for;
4. what was found is counted in by the session's `Tally` (`session_records`), as a record with the test's report where it comes from a
   worker or an isolated interpreter;
5. `collect` collects the records, writes the reports, and shows what was found.

This module only declares and hands over. The rest is imported when a marker, a fixture or an option needs it, so
that a session that uses none of them pays next to nothing. Those imports give full names: as attributes of this
package, modules would outlive what pytester makes Python forget, and two copies of a class would meet.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING

import pytest

from pytest_membudget import originals
from pytest_membudget.plugin import options

if TYPE_CHECKING:
    from pytest_membudget.plugin.fixtures import Membudget, SyntheticFiles
    from pytest_membudget.records.report import TestRecord
    from pytest_membudget.records.run import SyntheticFile
    from pytest_membudget.records.scale import Scale
    from pytest_membudget.runtime.admission.semaphore import MemorySemaphore
    from pytest_membudget.runtime.executor.executor import FallbackExecutor
    from pytest_membudget.runtime.monitoring.monitor import MemoryMonitor
    from pytest_membudget.runtime.prediction.estimator import MemoryEstimator

originals.bind_loaded()

_SETTINGS = pytest.StashKey[options.Settings]()
_ERRORS = pytest.StashKey[list[str]]()

CHILD_PLUGIN = "pytest_membudget.plugin.fresh.child_session"
"""The plugin that only a fresh interpreter loads."""


class Hooks:
    """The two hooks that other plugins and conftest files may implement."""

    @staticmethod
    @pytest.hookspec
    def pytest_membudget_measured(config: pytest.Config, record: TestRecord) -> None:
        """Called once for each test that was measured, after its teardown, with its final outcome.

        Under pytest-xdist it is called in the controller.
        """

    @staticmethod
    @pytest.hookspec
    def pytest_membudget_scales(config: pytest.Config, scales: dict[str, Scale]) -> None:
        """Called once, before tests are collected: add to `scales` or replace in it, by name."""


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Declares our two hooks."""
    pluginmanager.add_hookspecs(Hooks)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declares our options."""
    options.add_options(parser)


def pytest_load_initial_conftests(args: list[str]) -> None:
    """Separates the paths of reports from test paths."""
    options.separate_report_paths(args)


@pytest.hookimpl(wrapper=True, optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> Generator[None, int, int]:
    """`-n auto`: no more workers than fit into the memory that programs of this host share."""
    cores = yield
    most = config.getoption("maxprocesses", None)
    settings = options.read_settings(config)
    if settings.off:
        return cores
    from pytest_membudget.plugin.xdist import fitting_workers

    return fitting_workers(config, min(cores, most or cores), settings)


def pytest_configure(config: pytest.Config) -> None:
    """Reads the options, and starts what they ask for."""
    for description in options.MARKER_DESCRIPTIONS:
        config.addinivalue_line("markers", description)
    settings = config.stash[_SETTINGS] = options.read_settings(config)
    config.stash[_ERRORS] = []
    if settings.off:
        return
    if is_worker(config):
        os.environ.update(config.workerinput.get("membudget_environment", {}))  # type: ignore[attr-defined]
    if is_controller(config):
        from pytest_membudget.plugin.registration import start_reporting
        from pytest_membudget.plugin.xdist import Controller

        start_reporting(config, settings)
        config.pluginmanager.register(Controller(config), "membudget-controller")
    elif settings.measure_all:
        from pytest_membudget.plugin.registration import start_measuring

        start_measuring(config, settings)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Runs a test that takes `memory_scale` once for each scale."""
    if "memory_scale" in metafunc.fixturenames:
        from pytest_membudget.plugin.scales import parametrize

        error = parametrize(metafunc, metafunc.config.stash[_SETTINGS])
        metafunc.config.stash[_ERRORS] += [error] if error else []


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Reads the markers of what is going to run, and starts measuring where there are any."""
    settings, errors = config.stash[_SETTINGS], config.stash[_ERRORS]
    if settings.off and not errors:
        return
    if settings.scales and not errors:
        from pytest_membudget.plugin.scales import unknown

        errors += unknown(settings, config)
    if settings.measure_all or errors or any(map(options.is_marked, items)):
        from pytest_membudget.plugin.registration import plan_tests

        plan_tests(config, items, settings, errors)


def is_worker(config: pytest.Config) -> bool:
    """Whether this is one of pytest-xdist's workers, whose controller reports."""
    return hasattr(config, "workerinput")


def is_controller(config: pytest.Config) -> bool:
    """Whether this process only hands tests to pytest-xdist's workers."""
    return config.getoption("dist", "no") != "no" and not is_worker(config)


def is_fresh(config: pytest.Config) -> bool:
    """Whether this interpreter was started for one test, by a session that reports."""
    return config.pluginmanager.has_plugin(CHILD_PLUGIN)


@pytest.fixture
def membudget(request: pytest.FixtureRequest) -> Iterator[Membudget]:
    """Measures blocks inside the test, and sees or sets the test's own budget."""
    from pytest_membudget.plugin.fixtures import Membudget
    from pytest_membudget.plugin.running_test import running_test

    settings = request.config.stash[_SETTINGS]
    made = Membudget(strict=settings.strict, interval_s=settings.interval_s, fails=not settings.off)
    test = running_test(request.node)
    if test is None:
        yield made
        return
    test.membudget = made
    yield made
    test.membudget = None


@pytest.fixture
def memory_scale(request: pytest.FixtureRequest) -> Scale:
    """The scale to run at; the test runs once for each."""
    scale: Scale = request.param
    return scale


@pytest.fixture(scope="session")
def _membudget_files(pytestconfig: pytest.Config) -> Iterator[SyntheticFiles]:
    from pytest_membudget.plugin.fixtures import SyntheticFiles
    from pytest_membudget.plugin.session_records import shared_folder

    files = SyntheticFiles(shared_folder(pytestconfig) / "files")
    yield files
    if not (is_worker(pytestconfig) or is_fresh(pytestconfig)):
        files.remove()


@pytest.fixture(scope="session")
def synthetic_file(_membudget_files: SyntheticFiles) -> Callable[..., SyntheticFile]:
    """`synthetic_file("20 MB", kind="csv", seed=0)`: a file of exactly that size, made once a session."""
    return _membudget_files.one


@pytest.fixture(scope="session")
def synthetic_files(_membudget_files: SyntheticFiles) -> Callable[..., list[SyntheticFile]]:
    """`synthetic_files("1MB..16MB", kind="json")`: several such files; also for a list of sizes or a scale."""
    return _membudget_files.several


@pytest.fixture
def memory_estimator(request: pytest.FixtureRequest) -> MemoryEstimator:
    """A `MemoryEstimator`: the preset "dataframe", or the preset or calibration that an indirect parameter names."""
    from pytest_membudget.plugin.fixtures.runtime import make_estimator

    return make_estimator(request, strict=request.config.stash[_SETTINGS].strict)


@pytest.fixture
def memory_semaphore(request: pytest.FixtureRequest) -> MemorySemaphore:
    """A `MemorySemaphore` over what is really available, or of the budget that an indirect parameter gives."""
    from pytest_membudget.plugin.fixtures.runtime import make_semaphore

    return make_semaphore(request)


@pytest.fixture
def memory_monitor(request: pytest.FixtureRequest) -> Iterator[MemoryMonitor]:
    """A `MemoryMonitor` of this process while the test runs; what it saw is shown in the session's report."""
    from pytest_membudget.plugin.fixtures.runtime import monitoring

    with monitoring(request) as monitor:
        yield monitor


@pytest.fixture
def fallback_executor(
    request: pytest.FixtureRequest, memory_estimator: MemoryEstimator
) -> Iterator[FallbackExecutor]:
    """A `FallbackExecutor` in real processes, shut down after the test."""
    from pytest_membudget.plugin.fixtures.runtime import keep_batches, make_executor

    with make_executor(request, memory_estimator) as executor:
        yield executor
    keep_batches(request.config, executor.summaries)
