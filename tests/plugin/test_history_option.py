import json
import subprocess

import pytest

from pytest_membudget.gate.history import open_history
from pytest_membudget.measurement.system.machine import environment
from pytest_membudget.records.report import Report, TestRecord

TEST = "def test_a():\n    assert len(bytearray(5_000_000))\n"


def runs(pytester):
    with open_history(pytester.path / "h.sqlite") as history:
        return history.runs()


def test_each_run_is_added_also_by_the_ini_option(pytester):
    pytester.makepyfile(TEST)
    pytester.runpytest("--membudget-history=h.sqlite").assert_outcomes(passed=1)
    pytester.makeini("[pytest]\nmembudget_history = h.sqlite\n")
    result = pytester.runpytest()
    result.stdout.fnmatch_lines(["membudget: history: h.sqlite (2 runs)"])
    assert [run.tests for run in runs(pytester)] == [1, 1]
    assert runs(pytester)[0].environment.python


def test_xdist_adds_one_run_of_all_workers(pytester):
    pytester.makepyfile(test_one=TEST, test_two=TEST)
    pytester.runpytest("-p", "xdist", "-n2", "--membudget-history=h.sqlite").assert_outcomes(passed=2)
    assert [run.tests for run in runs(pytester)] == [2]


def test_the_revision_is_the_commit_that_is_checked_out(pytester):
    pytester.makepyfile(TEST)
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@x"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run([*git, *words], cwd=pytester.path, check=True)
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=pytester.path, capture_output=True, text=True, check=True
    ).stdout.strip()
    pytester.runpytest("--membudget-history=h.sqlite", "--membudget-report=r.json")
    pytester.makepyfile(TEST + "# changed\n")
    pytester.runpytest("--membudget-history=h.sqlite")
    assert [run.revision for run in runs(pytester)] == [head, f"{head}+changed"]
    assert json.loads((pytester.path / "r.json").read_text())["revision"] == head


@pytest.mark.parametrize(
    ("path", "told"), [("test_a.py", "not a membudget history"), ("test_a.py/h.sqlite", "test_a.py")]
)
def test_a_file_that_cannot_keep_the_run_is_a_usage_error_before_any_test(pytester, path, told):
    pytester.makepyfile(test_a=TEST)
    result = pytester.runpytest(f"--membudget-history={path}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*--membudget-history: *{told}*"])


@pytest.fixture
def with_history(pytester):
    """A test of 40 MB with a baseline, and a history of thirty quiet revisions of it."""
    pytester.makepyfile(test_a="def test_a():\n    assert len(bytearray(40_000_000))\n")
    taken = pytester.runpytest(
        "--membudget-baseline=b.json", "--membudget-update-baseline", "--membudget-samples=1"
    )
    taken.assert_outcomes(passed=1)
    record = TestRecord(nodeid="test_a.py::test_a", outcome="passed", peak_bytes=40_000_000)
    with open_history(pytester.path / "h.sqlite", create=True) as history:
        for number in range(30):
            history.add(Report(tests=(record,), environment=environment()), f"r{number}")
    pytester.makepyfile(test_a="def test_a():\n    assert len(bytearray(43_000_000))\n")
    return pytester


def test_the_gate_learns_a_tighter_tolerance_from_a_quiet_history_and_says_so(with_history):
    options = ("--membudget-baseline=b.json", "--membudget-samples=1")
    with_history.runpytest(*options).assert_outcomes(passed=1)
    result = with_history.runpytest(*options, "--membudget-history=h.sqlite")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["*regressed: peak*", "*allowed   3% + 512 KiB, learned from its last 30 revisions"]
    )


def test_a_tolerance_that_is_given_beats_what_was_learned(with_history):
    options = ("--membudget-baseline=b.json", "--membudget-samples=1", "--membudget-history=h.sqlite")
    with_history.runpytest(*options, "--membudget-tolerance=10% + 1 MiB").assert_outcomes(passed=1)
