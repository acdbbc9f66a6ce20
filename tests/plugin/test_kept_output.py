"""What stays in logs and files: places, one line where one was asked for, commands that name their test, honest times."""

import json
import re

OVER = """
import pytest

@pytest.mark.memory_budget("1 MiB")
def test_over():
    assert len(bytearray(b"x") * 20_000_000)
"""


def test_a_failure_ends_with_file_and_line_and_suggests_what_the_option_would(pytester):
    pytester.makepyfile(test_it=OVER)
    result = pytester.runpytest("-q")
    result.stdout.fnmatch_lines(['*@pytest.mark.memory_budget("30 MiB")', "test_it.py:3: OverBudget"])
    pytester.makepyfile(test_it=OVER.replace('@pytest.mark.memory_budget("1 MiB")', ""))
    result = pytester.runpytest("-q", "--membudget-suggest")
    result.stdout.fnmatch_lines(['test_it.py::test_over: @pytest.mark.memory_budget("30 MiB")*'])


def test_one_line_is_one_line(pytester):
    pytester.makepyfile(test_it=OVER)
    lines = pytester.runpytest("-q", "--tb=line").outlines
    (found,) = [number for number, line in enumerate(lines) if re.match(r".*test_it\.py:\d+: peak", line)]
    assert not lines[found + 1].startswith("  measured")


def test_a_regression_s_command_accepts_that_test_alone_and_its_reruns_are_not_the_test_s_time(pytester):
    gate = ("--membudget-baseline=memory.json", "--membudget-samples=2", "-q")
    pytester.makepyfile(test_it="def test_a(): assert len(bytearray(b'x') * 10_000_000)")
    pytester.runpytest(*gate, "--membudget-update-baseline").assert_outcomes(passed=1)
    pytester.makepyfile(test_it="def test_a(): assert len(bytearray(b'x') * 20_000_000)")
    result = pytester.runpytest(*gate, "--junitxml=junit.xml")
    result.stdout.fnmatch_lines(
        [
            "*or, if it may use that much: pytest test_it.py::test_a --membudget-baseline=memory.json *-update-baseline",
            "membudget: 1 test beyond the baseline, run again 2 times in fresh processes",
        ]
    )
    junit = (pytester.path / "junit.xml").read_text()
    session_s, test_s = (
        float(re.search(rf'{name} [^>]*time="([\d.]+)"', junit)[1]) for name in ("testsuite", "testcase")
    )
    assert test_s < session_s / 2  # two starts of pytest take ten times as long as the test


def test_what_is_not_in_a_new_baseline_is_named_and_a_traceback_is_not_retained_memory(pytester):
    pytester.makepyfile(
        test_it="""
        def test_fails():
            kept = bytearray(b"x") * 20_000_000
            assert not kept

        def test_passes(): pass
        """
    )
    gate = ("--membudget-baseline=memory.json", "--membudget-samples=1", "--membudget-report=r.json", "-q")
    result = pytester.runpytest(*gate, "--membudget-update-baseline")
    result.stdout.fnmatch_lines(
        [
            "membudget: baseline: memory.json (1 test); 1 not in it, as they did not pass*: test_it.py::test_fails"
        ]
    )
    assert json.loads((pytester.path / "r.json").read_text())["left_behind"] == []


def test_a_short_test_has_no_timeline_that_contradicts_its_peak(pytester):
    pytester.makepyfile(test_it=OVER)
    pytester.runpytest("-q", "--membudget-report=r.json")
    (test,) = json.loads((pytester.path / "r.json").read_text())["tests"]
    highest = max((point[1] for point in test["timeline"]), default=test["peak_bytes"])
    assert 2 * highest >= test["peak_bytes"]
