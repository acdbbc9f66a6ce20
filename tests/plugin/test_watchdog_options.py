"""hard=True and --membudget-stop-at: a runaway is ended and named, and the session goes on."""

import json

import pytest

HEAD = """
import subprocess
import sys
import time
import pytest

hard = pytest.mark.memory_budget("60 MiB", hard=True)

def run_away():
    kept = []
    try:
        for step in range(400):
            kept.append(bytearray(b"x") * (4 << 20))
            time.sleep(0.02)
    except Exception:
        pass
"""


def run(pytester, body, *args):
    pytester.makepyfile(test_it=HEAD + body)
    return pytester.runpytest_subprocess("--membudget-report=a.json", *args)


def records(pytester):
    tests = json.loads((pytester.path / "a.json").read_text())["tests"]
    return {test["nodeid"].partition("::")[2]: test for test in tests}


@pytest.mark.processes
def test_a_runaway_test_is_stopped_named_and_its_memory_given_back(pytester):
    result = run(
        pytester,
        """
@hard
def test_runs_away():
    run_away()

@pytest.mark.memory_budget(total="600 MiB")
def test_after():
    pass
""",
    )
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines(
        ["FAILED *::test_runs_away - killed: took *more than the 60.0 MiB it may take*"]
    )
    result.stdout.fnmatch_lines(["*what it would have used is not known, since it was stopped"])
    result.stdout.fnmatch_lines(["*run_away*"])
    assert records(pytester)["test_runs_away"]["verdict"] == "killed"
    assert records(pytester)["test_runs_away"]["peak_bytes"] < 1_000_000_000


@pytest.mark.processes
def test_under_xdist_the_stack_begins_at_the_test(pytester):
    result = run(pytester, "@hard\ndef test_runs_away(): run_away()", "-p", "xdist", "-n1")
    text = result.stdout.str()
    told = text[text.index("It was doing this") : text.index("peak ")]
    assert "in test_runs_away" in told.splitlines()[1]
    assert "execnet" not in told


@pytest.mark.processes
def test_a_debugger_opens_where_the_test_was_stopped(pytester):
    result = run(pytester, "@hard\ndef test_runs_away(): run_away()", "--pdb")
    result.stdout.re_match_lines([r"> .*test_it\.py\(\d+\)run_away\(\)"])


@pytest.mark.processes
def test_a_runaway_child_is_killed_and_named(pytester):
    result = run(
        pytester,
        """
@hard
def test_child():
    code = "import time\\nkept = []\\nfor i in range(400):\\n    kept.append(b'x' * (4 << 20)); time.sleep(0.02)"
    subprocess.run([sys.executable, "-c", code], check=True)
""",
    )
    result.stdout.fnmatch_lines(["FAILED *::test_child - killed: *its child *was killed*"])
    result.stdout.fnmatch_lines(["*the test then ended with CalledProcessError*"])


@pytest.mark.processes
def test_a_share_of_the_limit_stops_any_test(pytester):
    pytester.makeconftest(
        """
        import pytest_membudget.plugin.probes as probes
        from pytest_membudget import MemoryLimit

        probes.memory_limit = lambda: MemoryLimit(bytes=400 << 20, source="scripted")
        """
    )
    result = run(
        pytester, "def test_runs_away(): run_away()\ndef test_after(): pass", "--membudget-stop-at=50%"
    )
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines(
        ["killed: *the whole tree holds *, more than the 200 MiB it may hold: it was stopped"]
    )


@pytest.mark.processes
@pytest.mark.slow
def test_a_test_stuck_in_c_code_ends_the_process_and_the_saved_report_names_it(pytester):
    pytester.makeconftest(
        """
        import pytest_membudget.measurement.watchdog as watchdog
        import pytest_membudget.plugin.probes as probes
        from pytest_membudget import MemoryLimit

        probes.memory_limit = lambda: MemoryLimit(bytes=400 << 20, source="scripted")
        patient = watchdog.Watchdog
        watchdog.Watchdog = lambda **orders: patient(grace_s=0.5, **orders)
        """
    )
    result = run(
        pytester,
        """
def test_before(): pass

def test_stuck():
    kept = bytearray(b"x") * (300 << 20)
    sum(range(10**12))
""",
        "--membudget-stop-at=50%",
    )
    assert result.ret != 0
    found = records(pytester)
    assert found["test_before"]["outcome"] == "passed"
    assert found["test_stuck"]["verdict"] == "killed"


@pytest.mark.processes
@pytest.mark.slow
def test_an_isolated_test_stuck_in_c_code_is_killed_and_the_session_goes_on(pytester):
    pytester.makeconftest(
        """
        import pytest_membudget.measurement.watchdog as watchdog

        patient = watchdog.Watchdog
        watchdog.Watchdog = lambda **orders: patient(grace_s=0.5, **orders)
        """
    )
    result = run(
        pytester,
        """
@pytest.mark.memory_budget("60 MiB", hard=True, isolate=True)
def test_stuck():
    kept = bytearray(b"x") * (300 << 20)
    sum(range(10**12))

def test_after(): pass
""",
    )
    result.assert_outcomes(failed=1, passed=1)
    assert records(pytester)["test_stuck"]["verdict"] == "killed"
