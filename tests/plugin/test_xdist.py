"""Under pytest-xdist each worker measures its own tests, and the controller reports all of them."""

import json
import subprocess
import sys

import pytest

from pytest_membudget import MemorySemaphore
from pytest_membudget.plugin import xdist
from pytest_membudget.plugin.xdist import SuiteMemory, workers_that_fit

MIB = 1024**2
GIB = 1024**3
TWO_WORKERS = ("-p", "xdist", "-n2")


@pytest.mark.parametrize(
    ("cores", "available", "limit", "worker", "workers"),
    [
        (8, 16 * GIB, 16 * GIB, 256 * MIB, 8),  # memory for 51
        (8, 2 * GIB, 4 * GIB, 256 * MIB, 4),  # 2 GiB less 0.8 GiB in reserve hold 4
        (8, GIB, 16 * GIB, 256 * MIB, 1),  # less than the reserve
        (8, 16 * GIB, 16 * GIB, 0, 8),
    ],
)
def test_auto_starts_no_more_workers_than_fit(cores, available, limit, worker, workers):
    assert workers_that_fit(cores, available, limit, worker) == workers


@pytest.mark.processes
def test_records_reach_the_controller_whole(pytester):
    pytester.makepyfile(
        test_it="""
        import os
        import pytest

        @pytest.mark.parametrize("number", range(4))
        @pytest.mark.memory_budget("30 MB")
        def test_job(number):
            bytearray(b"x") * (number * 20_000_000)

        @pytest.mark.memory_budget("30 MB", isolate=True)
        def test_alone():
            assert "PYTEST_XDIST_WORKER" in os.environ
        """
    )
    result = pytester.runpytest_subprocess(*TWO_WORKERS, "--membudget-report=a.json", "--junitxml=junit.xml")
    result.assert_outcomes(passed=3, failed=2)
    tests = json.loads((pytester.path / "a.json").read_text())["tests"]
    verdicts = {test["nodeid"].partition("::")[2]: test["verdict"] for test in tests}
    assert verdicts == {
        "test_job[0]": "within",
        "test_job[1]": "within",
        "test_job[2]": "over",
        "test_job[3]": "over",
        "test_alone": "within",
    }
    assert (pytester.path / "junit.xml").read_text().count('name="membudget_verdict"') == 5


@pytest.mark.processes
def test_marked_tests_are_judged_without_any_option(pytester):
    pytester.makepyfile(
        test_it="""
        import pytest

        @pytest.mark.memory_budget("1 MB")
        def test_job():
            bytearray(b"x") * 60_000_000
        """
    )
    result = pytester.runpytest_subprocess(*TWO_WORKERS)
    result.stdout.fnmatch_lines(["membudget: 1 test measured, 1 over budget*"])


@pytest.mark.processes
def test_scales_on_different_workers_make_one_table_and_one_law(pytester):
    pytester.makepyfile(
        test_it="""
        import pytest

        @pytest.mark.memory_scales("micro", "small", "medium", law="flat")
        def test_job(memory_scale):
            bytearray(b"x") * (20 * memory_scale.size_bytes)
        """
    )
    result = pytester.runpytest_subprocess(*TWO_WORKERS, "--membudget-report=a.json")
    result.assert_outcomes(passed=2, failed=1)
    (table,) = json.loads((pytester.path / "a.json").read_text())["scales"]
    assert len(table["rows"]) == 3


@pytest.mark.processes
def test_synthetic_files_are_shared_by_workers_and_removed(pytester):
    pytester.makepyfile(
        test_it="""
        import pytest

        @pytest.mark.parametrize("turn", range(4))
        def test_job(synthetic_file, turn):
            with open("seen.txt", "a") as seen:
                print(synthetic_file("100 kB").path, file=seen)
        """
    )
    pytester.runpytest_subprocess(*TWO_WORKERS).assert_outcomes(passed=4)
    (path,) = set((pytester.path / "seen.txt").read_text().split())
    assert not pytester.path.joinpath(path).exists()


@pytest.mark.processes
def test_a_wrong_marker_is_a_usage_error_here_too(pytester):
    pytester.makepyfile(
        test_it="""
        import pytest

        @pytest.mark.memory_budget("12 parsecs")
        def test_job():
            open("ran", "w")
        """
    )
    result = pytester.runpytest_subprocess(*TWO_WORKERS)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*test_it.py::test_job: memory_budget: argument 'peak': '12 parsecs'*"])
    assert not (pytester.path / "ran").exists()


@pytest.mark.processes
def test_auto_follows_the_memory_that_is_available(pytester, monkeypatch):
    monkeypatch.setenv("PYTEST_XDIST_AUTO_NUM_WORKERS", "3")
    monkeypatch.setenv("MEMBUDGET_HOST_DIRECTORY", str(pytester.path / "host"))
    pytester.makeconftest(
        """
        import pytest_membudget.measurement.system.machine as measurement
        from pytest_membudget.records.measurement import MemoryLimit, MemoryReading

        limit = MemoryLimit(bytes=1 << 30, source="scripted")
        measurement.memory_reading = lambda: MemoryReading(limit=limit, available_bytes=1 << 30)
        """
    )
    pytester.makepyfile("def test_free(): pass")
    arguments = ("-p", "xdist", "-n", "auto")
    pytester.runpytest_subprocess(*arguments).stdout.fnmatch_lines(["*2/2 workers*"])
    pytester.runpytest_subprocess(*arguments, "--membudget-default=1 GB").stdout.fnmatch_lines(
        ["*1/1 worker*"]
    )


@pytest.mark.processes
def test_workers_share_the_budget_of_the_host(pytester, monkeypatch):
    monkeypatch.setenv("MEMBUDGET_HOST_DIRECTORY", str(pytester.path / "host"))
    pytester.makepyfile(
        test_it="""
        import time
        from pathlib import Path
        import pytest
        from pytest_membudget import MemorySemaphore

        @pytest.mark.parametrize("turn", range(6))
        def test_job(turn):
            with MemorySemaphore("100 MB", scope="host", name="nightly").reserve("60 MB", timeout_s=60):
                Path("inside").touch(exist_ok=False)  # fails where another one is inside as well
                time.sleep(0.05)
                Path("inside").unlink()
        """
    )
    pytester.runpytest_subprocess(*TWO_WORKERS).assert_outcomes(passed=6)


@pytest.mark.kernel
@pytest.mark.processes
@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="RLIMIT_AS binds the kernel's own way on Linux alone"
)
def test_auto_keeps_to_a_limit_of_the_kernel(pytester):
    """3.6 GB of address space, less 20% and less what this process has mapped, hold two workers of 1 GB and not three."""
    pytester.makepyfile(
        """
        import resource

        def test_free():
            assert resource.getrlimit(resource.RLIMIT_AS)[0] == 3_600_000_000
        """
    )
    tests = [{"nodeid": "test_it.py::test_free", "outcome": "passed", "peak_bytes": 1_000_000_000}]
    header = {"format": "membudget-report", "version": 1, "kind": "baseline", "environment": {}, "scales": []}
    pytester.path.joinpath("memory.json").write_text(json.dumps({**header, "tests": tests}))
    limited = (
        "import os, resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_AS, (3_600_000_000, 3_600_000_000))\n"
        "os.environ['PYTEST_XDIST_AUTO_NUM_WORKERS'] = '8'\n"
        "os.execv(sys.executable, [sys.executable, '-m', 'pytest', *sys.argv[1:]])\n"
    )
    words = ("-p", "xdist", "-n", "auto", "--membudget-baseline=memory.json")
    result = pytester.run(sys.executable, "-c", limited, *words)
    result.stdout.fnmatch_lines(["*2/2 workers*"])
    result.assert_outcomes(passed=1)


@pytest.fixture
def host_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("MEMBUDGET_HOST_DIRECTORY", str(tmp_path / "host"))


@pytest.fixture
def suite(host_directory, monkeypatch):
    monkeypatch.setattr(xdist, "resident_bytes", lambda: 50_000_000)
    memory = SuiteMemory()
    yield memory
    memory.release()


def test_auto_takes_its_workers_memory_from_the_hosts_budget(suite):
    other = MemorySemaphore("4 GB", scope="host")
    with other.reserve("1 GB"):
        workers = suite.fitting_workers(64, 900_000_000, None)
        assert workers == 3, "of 4 GB one is taken, and each worker takes more than its test"
        assert other.statistics().reserved_bytes > 3_700_000_000
    suite.release()
    assert other.statistics().reserved_bytes == 0


def test_one_worker_starts_on_a_machine_that_is_too_small_for_it(suite):
    other = MemorySemaphore("100 MB", scope="host")
    assert suite.fitting_workers(8, 900_000_000, None) == 1
    assert other.statistics().reserved_bytes == 100_000_000


def test_no_session_waits_for_itself(suite):
    other = MemorySemaphore("2 GB", scope="host")
    assert suite.fitting_workers(64, 900_000_000, None) == 2
    assert suite.fitting_workers(64, 900_000_000, None) == 0
    assert other.statistics().waiting == 0


def test_where_the_hosts_state_cannot_be_read_what_is_available_now_counts(suite, tmp_path, capsys):
    (tmp_path / "host").mkdir(mode=0o755)
    assert suite.fitting_workers(2, 1, None) == 2
    assert "open to others" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.processes
def test_two_suites_that_start_together_never_count_on_the_same_bytes(pytester, host_directory):
    pytester.makepyfile(
        test_it="""
        import time
        from pathlib import Path
        import pytest
        from pytest_membudget import MemorySemaphore
        from pytest_membudget.runtime.admission.host_scope import host_status

        @pytest.mark.parametrize("turn", range(2))
        def test_job(turn, worker_id):
            time.sleep(0.2)
            status = host_status()
            assert 0 < status.reserved_bytes <= status.budget_bytes
            inner = MemorySemaphore(scope="host").statistics()
            assert inner.budget_bytes == status.holders[0].bytes, "it draws on what its suite reserved"
        """
    )
    budget = MemorySemaphore("1.5 GB", scope="host")
    options = ["-p", "xdist", "-n", "auto", "-q", "-p", "no:cacheprovider", "--membudget-default=1GB"]
    command = [sys.executable, "-m", "pytest", *options]
    suites = [
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=pytester.path
        )
        for _ in range(2)
    ]
    told = [suite.communicate(timeout=100) for suite in suites]
    assert [suite.returncode for suite in suites] == [0, 0], told
    assert sum("waiting for" in error for _, error in told) == 1
    assert budget.statistics().reserved_bytes == 0


@pytest.mark.slow
@pytest.mark.processes
def test_no_more_is_reserved_than_maxprocesses_allows(pytester, host_directory):
    pytester.makepyfile(
        test_it="""
        from pytest_membudget.runtime.admission.host_scope import host_status

        def test_job():
            (holder,) = host_status().holders
            assert holder.bytes < 2_000_000_000
        """
    )
    options = ("-p", "xdist", "-n", "auto", "--maxprocesses=1", "--membudget-default=1GB")
    pytester.runpytest_subprocess(*options).assert_outcomes(passed=1)
