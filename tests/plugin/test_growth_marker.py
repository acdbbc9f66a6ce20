"""memory_growth repeats a test's body, whatever kind of test it is."""

import json

import pytest


def run(pytester, body, *args):
    pytester.makepyfile(test_it="import pytest\n\nkept = []\n\n" + body)
    return pytester.runpytest_subprocess("--membudget-report=a.json", *args)


def record(pytester):
    (test,) = json.loads((pytester.path / "a.json").read_text())["tests"]
    return test


def test_a_leak_fails_the_test_and_names_the_culprit(pytester):
    result = run(
        pytester,
        """
@pytest.mark.memory_growth(per_call="0 B")
def test_job():
    kept.append(bytes(1000))
""",
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "FAILED *::test_job - leak: * more per call, 0 B allowed",
        ]
    )
    found = record(pytester)
    assert found["verdict"] == "leak"
    assert 1000 <= found["growth"]["bytes_per_call"] < 1200


def test_growth_within_the_allowance_passes(pytester):
    result = run(
        pytester,
        """
@pytest.mark.memory_growth(per_call="4 kB")
def test_job():
    kept.append(bytes(1000))
""",
    )
    result.assert_outcomes(passed=1)
    assert record(pytester)["verdict"] == "clean"


def test_fixtures_are_made_once_and_the_body_runs_often(pytester):
    result = run(
        pytester,
        """
@pytest.fixture
def once(request):
    kept.append("made")
    yield
    assert kept.count("made") == 1 and len(calls) > 100

calls = [0]

@pytest.mark.memory_growth()
def test_job(once, tmp_path):
    del calls[100:]
    calls.append(len(calls))
""".replace("del calls[100:]", "del calls[200:]"),
    )
    result.assert_outcomes(passed=1)


@pytest.mark.parametrize("capture", ["fd", "sys"])
def test_what_pytest_keeps_of_output_and_logs_is_not_the_tests_growth(pytester, capture):
    result = run(
        pytester,
        """
import logging
import warnings

@pytest.mark.memory_growth()
def test_job(caplog):
    print("x" * 1000)
    logging.getLogger().warning("y" * 1000)
    warnings.warn("z" * 1000)
""",
        f"--capture={capture}",
    )
    result.assert_outcomes(passed=1, warnings=1)
    assert record(pytester)["verdict"] == "clean"


def test_unittest_methods_are_repeated_too(pytester):
    result = run(
        pytester,
        """
import unittest

class TestCase(unittest.TestCase):
    @pytest.mark.memory_growth()
    def test_job(self):
        kept.append(bytes(1000))
""",
    )
    result.stdout.fnmatch_lines(["FAILED *::test_job - leak: *"])


def test_async_tests_are_repeated_too(pytester):
    result = run(
        pytester,
        """
@pytest.mark.asyncio
@pytest.mark.memory_growth()
async def test_job():
    kept.append(bytes(1000))
""",
        "-p",
        "pytest_asyncio.plugin",
    )
    result.stdout.fnmatch_lines(["FAILED *::test_job - leak: *"])


def test_a_failure_in_a_repetition_is_the_tests_own(pytester):
    result = run(
        pytester,
        """
@pytest.mark.memory_growth()
def test_job():
    kept.append(1)
    assert len(kept) < 5
""",
    )
    result.stdout.fnmatch_lines(["FAILED *::test_job - assert 5 < 5*"])


def test_inconclusive_fails_only_under_strict(pytester):
    body = """
import time

@pytest.mark.memory_growth(timeout_s=0.2)
def test_job():
    time.sleep(0.15)
"""
    run(pytester, body).assert_outcomes(passed=1)
    assert record(pytester)["verdict"] == "inconclusive"
    run(pytester, body, "--membudget-strict").assert_outcomes(failed=1)
