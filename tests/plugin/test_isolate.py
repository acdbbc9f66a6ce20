"""isolate=True: a fresh interpreter for each such test, which otherwise behaves as in this process."""

import json
import sys

import psutil
import pytest

from waiting import is_alive, wait_until

HEAD = """
import os
import signal
import sys
import time
import pytest

isolated = pytest.mark.memory_budget("50 MiB", isolate=True)
"""


def run(pytester, body, *args):
    pytester.makepyfile(test_it=HEAD + body)
    return pytester.runpytest(*args)


def test_it_runs_in_another_process_with_its_fixtures_parameters_and_conftest(pytester):
    pytester.makeconftest(
        """
        import os, pytest

        @pytest.fixture
        def doubled(request):
            yield 2 * request.param
            print("torn down")
        """
    )
    result = run(
        pytester,
        f"""
@isolated
@pytest.mark.parametrize("doubled", [1, 2], indirect=True, ids=["a::b", "c[d]"])
def test_job(doubled, tmp_path):
    assert os.getpid() != {__import__("os").getpid()}
    assert doubled in (2, 4)
    assert tmp_path.is_dir()
""",
        "-v",
    )
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["test_it.py::test_job?a::b? PASSED*", "test_it.py::test_job?c?d?? PASSED*"])


def test_its_peak_is_judged_and_its_output_shown(pytester):
    result = run(
        pytester,
        """
@isolated
def test_job():
    print("from afar")
    bytearray(b"x") * 100_000_000
""",
        "--membudget-report=a.json",
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["peak 9*MiB > budget 50.0 MiB*", "*Captured stdout call*", "from afar", "FAILED *peak 9*"]
    )
    (test,) = json.loads((pytester.path / "a.json").read_text())["tests"]
    assert (test["isolated"], test["verdict"], test["outcome"]) == (True, "over", "failed")


def test_skip_xfail_and_failures_in_fixtures_are_as_ever(pytester):
    result = run(
        pytester,
        """
@pytest.fixture
def broken():
    raise RuntimeError("broken")

@pytest.fixture
def leaves_badly():
    yield
    raise RuntimeError("badly")

@isolated
def test_skips():
    pytest.skip("not today")

@isolated
@pytest.mark.xfail(raises=ValueError)
def test_expected():
    raise ValueError

@isolated
@pytest.mark.xfail(raises=ValueError)
def test_unexpected():
    raise KeyError("other")

@isolated
@pytest.mark.xfail(strict=True)
def test_passes_unexpectedly():
    pass

@isolated
def test_setup(broken):
    pass

@isolated
def test_teardown(leaves_badly):
    pass
""",
    )
    result.assert_outcomes(passed=1, failed=2, skipped=1, xfailed=1, errors=2)
    result.stdout.fnmatch_lines(
        ["ERROR *::test_setup - RuntimeError: broken", "ERROR *::test_teardown - RuntimeError: badly"]
    )


@pytest.mark.parametrize(
    ("ending", "said"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "*was ended by SIGKILL (signal 9)*, in its call*"),
        ("os.abort()", "*was ended by SIGABRT (signal 6), in its call*"),
        ("os._exit(3)", "*ended with exit code 3, in its call*"),
    ],
)
@pytest.mark.processes
def test_an_interpreter_that_dies_is_a_failure_of_its_test_and_the_session_goes_on(pytester, ending, said):
    result = run(
        pytester,
        f"""
@isolated
def test_dies():
    {ending}

def test_after():
    pass
""",
        "--membudget-report=a.json",
    )
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["FAILED *::test_dies - its fresh interpreter " + said[1:]])
    tests = json.loads((pytester.path / "a.json").read_text())["tests"]
    assert ("the limit is " in tests[0]["message"]) == ("SIGKILL" in ending)
    assert [(test["outcome"], test["verdict"]) for test in tests] == [
        ("failed", "crashed"),
        ("passed", "none"),
    ]


@pytest.mark.processes
def test_a_time_limit_ends_the_interpreter_and_what_it_started(pytester):
    result = run(
        pytester,
        """
import subprocess

@pytest.mark.memory_budget("50 MiB", isolate=True, timeout_s=5)
def test_hangs():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    open("pid", "w").write(str(child.pid))
    child.wait()
""",
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*its fresh interpreter was ended at its time limit of 5 s, in its call*"])
    assert not is_alive(int((pytester.path / "pid").read_text()))


def test_a_death_in_teardown_is_an_error_of_the_test(pytester):
    result = run(
        pytester,
        """
@pytest.fixture
def dies_late():
    yield
    os._exit(1)

@isolated
def test_job(dies_late):
    pass
""",
    )
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(
        ["ERROR *::test_job - its fresh interpreter ended with exit code 1, in its teardown"]
    )


def test_an_expected_death_is_xfailed(pytester):
    result = run(
        pytester,
        """
@isolated
@pytest.mark.xfail(strict=True)
def test_dies():
    os._exit(1)
""",
    )
    result.assert_outcomes(xfailed=1)


@pytest.mark.parametrize("isolate", [True, False])
def test_unittest_and_subtests_are_as_in_this_process(pytester, isolate):
    result = run(
        pytester,
        f"""
import unittest

@pytest.mark.memory_budget("50 MiB", isolate={isolate})
class TestCase(unittest.TestCase):
    def test_method(self):
        for number in (1, 2):
            with self.subTest(number=number):
                assert number == 1

    def test_other(self):
        pass
""",
        "--membudget-report=a.json",
    )
    result.stdout.fnmatch_lines(["*number=*2*TestCase::test_method*"])
    assert result.parseoutcomes() == {"failed": 1, "passed": 2}
    tests = json.loads((pytester.path / "a.json").read_text())["tests"]
    assert [test["outcome"] for test in tests] == ["failed", "passed"]


def test_pytest_exit_ends_the_session(pytester):
    result = run(
        pytester,
        """
@isolated
def test_exits():
    pytest.exit("enough", returncode=7)

def test_after():
    pass
""",
    )
    result.stdout.fnmatch_lines(["*Exit: enough*"])


@pytest.mark.processes
@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone ends a process with the one that started it")
def test_it_ends_with_a_session_that_is_killed(pytester):
    pytester.makepyfile(
        test_it=HEAD
        + """
@isolated
def test_job():
    with open("pid.new", "w") as file:
        file.write(str(os.getpid()))
    os.rename("pid.new", "pid")
    time.sleep(600)
"""
    )
    session = pytester.popen([sys.executable, "-m", "pytest"])
    file = pytester.path / "pid"
    wait_until(file.exists)
    test = psutil.Process(int(file.read_text()))
    session.kill()
    session.wait()
    session.stdout.close()
    session.stderr.close()
    wait_until(lambda: not is_alive(test))


def test_it_runs_without_pytests_capture(pytester):
    run(pytester, "@isolated\ndef test_job(): pass\n", "-p", "no:capture").assert_outcomes(passed=1)
