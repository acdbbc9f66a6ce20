"""Other plugins and other kinds of tests, side by side with this one."""

import json

import pytest

OVER = """
import pytest

@pytest.mark.memory_budget("10 MiB")
def test_over():
    bytearray(b"x") * 60_000_000

@pytest.mark.memory_budget("1 GiB")
def test_within():
    pass
"""


def figures(pytester):
    tests = json.loads((pytester.path / "a.json").read_text())["tests"]
    return {test["nodeid"].partition("::")[2]: test for test in tests}


def test_unittest_cases(pytester):
    pytester.makepyfile(
        test_it="""
        import unittest
        import pytest

        @pytest.mark.memory_budget("10 MiB")
        class TestCase(unittest.TestCase):
            def setUp(self):
                self.held = bytearray(b"x") * 60_000_000

            def test_over(self):
                bytearray(b"x") * 60_000_000

            def test_fails_by_itself(self):
                bytearray(b"x") * 60_000_000
                self.fail("own reason")

            def test_skips(self):
                self.skipTest("own reason")
        """
    )
    result = pytester.runpytest("--membudget-report=a.json")
    result.assert_outcomes(failed=2, skipped=1)
    result.stdout.fnmatch_lines(
        ["FAILED *test_fails_by_itself - AssertionError: own reason", "FAILED *test_over - peak * > budget*"]
    )
    assert figures(pytester)["TestCase::test_fails_by_itself"]["verdict"] == "over"


def test_doctests(pytester):
    pytester.makepyfile(
        job='''
        def job():
            """
            >>> len(bytearray(b"x") * 60_000_000)
            60000000
            """
        '''
    )
    result = pytester.runpytest("--doctest-modules", "--membudget-default=10 MiB")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["FAILED job.py::job.job - peak * > budget 10.0 MiB*"])


def test_tests_of_other_collectors(pytester):
    pytester.makeconftest(
        """
        import pytest

        class Item(pytest.Item):
            def runtest(self):
                bytearray(b"x") * 60_000_000

        class File(pytest.File):
            def collect(self):
                yield Item.from_parent(self, name="item")

        def pytest_collect_file(parent, file_path):
            if file_path.suffix == ".job":
                return File.from_parent(parent, path=file_path)
        """
    )
    (pytester.path / "one.job").write_text("")
    result = pytester.runpytest("--membudget-default=10 MiB")
    result.stdout.fnmatch_lines(["FAILED one.job::item - peak * > budget 10.0 MiB*"])


@pytest.mark.parametrize(
    ("marker", "plugins"),
    [
        ("pytest.mark.asyncio", ["-p", "pytest_asyncio.plugin"]),
        ("pytest.mark.anyio", ["-p", "anyio.pytest_plugin"]),
    ],
)
def test_async_tests(pytester, marker, plugins):
    pytester.makepyfile(
        test_it=f"""
        import asyncio
        import pytest

        @pytest.fixture
        def anyio_backend():
            return "asyncio"

        @{marker}
        @pytest.mark.memory_budget("10 MiB")
        async def test_over():
            await asyncio.sleep(0)
            bytearray(b"x") * 60_000_000
        """
    )
    result = pytester.runpytest_subprocess(*plugins)
    result.stdout.fnmatch_lines(["FAILED *::test_over - peak * > budget 10.0 MiB*"])


def test_rerunfailures_judges_the_last_attempt(pytester):
    pytester.makepyfile(
        test_it="""
        import pytest

        attempts = []

        @pytest.mark.memory_budget("10 MiB")
        def test_over_at_first():
            attempts.append(1)
            bytearray(b"x") * (60_000_000 if len(attempts) == 1 else 1)
        """
    )
    result = pytester.runpytest_subprocess(
        "-p", "pytest_rerunfailures", "--reruns=2", "--membudget-report=a.json", "--junitxml=j.xml"
    )
    assert result.parseoutcomes() == {"passed": 1, "rerun": 1}
    assert figures(pytester)["test_over_at_first"]["verdict"] == "within"
    verdicts = (pytester.path / "j.xml").read_text().split('name="membudget_verdict" value=')[1:]
    assert [verdict.split('"')[1] for verdict in verdicts] == ["over", "within"]


def test_rerunfailures_repeats_an_isolated_test_in_new_interpreters(pytester):
    pytester.makepyfile(
        test_it="""
        import os
        import pytest

        @pytest.mark.memory_budget("50 MiB", isolate=True)
        def test_dies_at_first():
            with open("pids", "a") as pids:
                print(os.getpid(), file=pids)
            if len(open("pids").readlines()) == 1:
                os._exit(1)
        """
    )
    result = pytester.runpytest_subprocess(
        "-p", "pytest_rerunfailures", "--reruns=2", "--membudget-report=a.json"
    )
    assert result.parseoutcomes() == {"passed": 1, "rerun": 1}
    assert len(set((pytester.path / "pids").read_text().split())) == 2
    assert figures(pytester)["test_dies_at_first"]["verdict"] == "within"


def test_exitfirst_and_last_failed(pytester):
    pytester.makepyfile(test_it=OVER)
    pytester.runpytest("-x").assert_outcomes(failed=1)
    result = pytester.runpytest("--lf")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*rerun previous 1 failure*"])


def test_pdb_opens_on_a_test_over_budget(pytester):
    pytester.makepyfile(test_it=OVER)
    child = pytester.spawn_pytest("--pdb")
    child.expect("peak .* > budget")
    child.expect("Pdb")
    child.sendline("continue")
    child.expect("1 failed, 1 passed")
    child.wait()


def test_memray_in_the_same_run(pytester):
    pytester.makepyfile(test_it=OVER)
    result = pytester.runpytest_subprocess("-p", "pytest_memray.plugin", "--memray")
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines(["FAILED *::test_over - peak *"])


@pytest.mark.parametrize(
    "call", ["benchmark(job)", "benchmark.pedantic(job, rounds=3, setup=lambda: ((), {}))"]
)
def test_benchmarks_get_the_peak_of_a_run_that_is_not_timed(pytester, call):
    pytester.makepyfile(
        test_it=f"""
        import pytest

        runs = []

        def job():
            runs.append(1)
            bytearray(b"x") * 60_000_000

        @pytest.mark.memory_budget("10 MiB")
        def test_job(benchmark):
            {call}
            timed = len(benchmark.stats.stats.data)
            assert benchmark.extra_info["membudget_peak_bytes"] > 50_000_000
        """
    )
    result = pytester.runpytest_subprocess(
        "-p",
        "pytest_benchmark.plugin",
        "--benchmark-json=b.json",
        "--benchmark-max-time=0.1",
        "--membudget-report=a.json",
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["FAILED *::test_job - peak * > budget 10.0 MiB*"])
    (saved,) = json.loads((pytester.path / "b.json").read_text())["benchmarks"]
    found = figures(pytester)["test_job"]
    assert saved["extra_info"]["membudget_peak_bytes"] == found["peak_bytes"]
    assert saved["stats"]["mean"] == pytest.approx(found["duration_s"])


def test_a_benchmark_that_is_not_called_says_so(pytester):
    pytester.makepyfile(test_it="def test_job(benchmark): pass")
    pytester.runpytest_subprocess("-p", "pytest_benchmark.plugin", "--membudget-report=a.json")
    assert "did not call it" in figures(pytester)["test_job"]["caveats"][0]


def test_timeout_is_for_the_test_and_not_for_its_repetitions(pytester):
    pytester.makepyfile(
        test_it="""
        import time
        import pytest

        @pytest.mark.timeout(2)
        @pytest.mark.memory_growth(timeout_s=3)
        def test_repeated():
            time.sleep(0.4)

        @pytest.mark.timeout(1)
        @pytest.mark.memory_budget("50 MiB", isolate=True)
        def test_hangs_alone():
            time.sleep(60)
        """
    )
    result = pytester.runpytest_subprocess("-p", "pytest_timeout")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["FAILED *::test_hangs_alone - Failed: Timeout*1*"])


def test_what_a_test_module_replaces_for_good_stops_no_session(pytester):
    pytester.makepyfile(
        """
        import io, subprocess
        import pytest

        subprocess._fork_exec = None  # as gevent does
        open_file = io.open

        @pytest.fixture
        def faked(monkeypatch):
            def fake(file, *arguments, **named):  # as pyfakefs has it: it knows no descriptor of the real system
                if isinstance(file, int):
                    raise OSError(9, "Bad file descriptor")
                return open_file(file, *arguments, **named)
            monkeypatch.setattr(io, "open", fake)

        @pytest.mark.memory_growth(timeout_s=3)
        def test_it(faked): ...
        """
    )
    pytester.runpytest_subprocess("--membudget").assert_outcomes(passed=1)
