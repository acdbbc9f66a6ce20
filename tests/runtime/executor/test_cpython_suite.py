"""CPython's own tests of executors, run on ours, where the interpreter has them installed.

Many installations leave the standard library's tests out; then these are skipped, and say so. Those tests of CPython
that look into its own classes (`executor._processes`, `from concurrent.futures import …` in a child) are not about
the interface and are left out by name.
"""

import functools
import importlib
import importlib.util
import unittest

import pytest

from pytest_membudget import FallbackExecutor

ROOM = "test.test_concurrent_futures"

pytestmark = [pytest.mark.slow, pytest.mark.processes]

LOOKS_INSIDE = {
    # Builds the standard library's executor by name in a child interpreter.
    "test_interpreter_shutdown",
    "test_submit_after_interpreter_shutdown",
    "test_hang_gh83386",
}


def suite(module, name):
    """A class of CPython's tests, which older versions keep in one module; skipped where they are not installed."""
    room = importlib.util.find_spec(ROOM)
    if room is None:
        pytest.skip(f"this Python has no {ROOM}; install its standard library's tests")
    place = ROOM if room.submodule_search_locations is None else f"{ROOM}.{module}"
    return getattr(importlib.import_module(place), name)


class OurExecutor:
    """What CPython's mixins do, for a level of ours."""

    worker_count = 5
    level = ""

    def setUp(self):
        super().setUp()
        self.executor_type = functools.partial(FallbackExecutor, budget="2 GB", levels=(self.level,))
        self.executor = self.executor_type(max_workers=self.worker_count)

    def tearDown(self):
        self.executor.shutdown(wait=True)
        self.executor = None
        super().tearDown()


def run(tests, level, leave_out=frozenset()):
    """Runs a class of CPython's on a level of ours; how many tests ran."""
    case = type(tests.__name__, (OurExecutor, tests, unittest.TestCase), {"level": level})
    names = [name for name in unittest.TestLoader().getTestCaseNames(case) if name not in leave_out]
    result = unittest.TestResult()
    unittest.TestSuite(case(name) for name in names).run(result)
    assert not result.failures + result.errors, "\n".join(text for _, text in result.failures + result.errors)
    return result.testsRun - len(result.skipped)


@pytest.mark.parametrize("level", ["process", "thread"])
@pytest.mark.parametrize(
    ("module", "name", "least"),
    [
        ("executor", "ExecutorTest", 8),
        ("test_as_completed", "AsCompletedTests", 4),
        ("test_wait", "WaitTests", 5),
        ("test_shutdown", "ExecutorShutdownTest", 3),
    ],
)
def test_a_level_passes_cpythons_tests(module, name, least, level):
    assert run(suite(module, name), level, LOOKS_INSIDE) >= least


def test_the_sequential_level_passes_executor_test_without_its_timeout():
    assert run(suite("executor", "ExecutorTest"), "sequential", {"test_map_timeout"}) >= 7
