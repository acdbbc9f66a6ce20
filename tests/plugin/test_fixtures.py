"""The fixtures give the real parts."""

import json

import pytest


def run(pytester, body, *args):
    pytester.makepyfile(test_it="import os\nimport pytest\n\n" + body)
    return pytester.runpytest(*args)


def test_membudget_measures_blocks_and_checks_them(pytester):
    run(
        pytester,
        """
from pytest_membudget import OverBudgetError

def test_job(membudget):
    with membudget.measuring("load") as probe:
        bytearray(b"x") * 60_000_000
    assert 59_000_000 < probe.measurement.peak_bytes < 66_000_000
    membudget.check(probe.measurement, "80 MB")
    with pytest.raises(OverBudgetError, match="load: peak .* > budget 9.54 MiB"):
        membudget.check(probe.measurement, "10 MB")
    again = membudget.measure(bytearray, 60_000_000)
    assert len(again.value) == 60_000_000
    assert [each.label for each in membudget.measurements] == ["load", "bytearray"]
    alone = membudget.measure_isolated(sum, range(1000))
    assert alone.value == 499500 and membudget.measurements[-1] is alone
    assert membudget.limit.bytes > 0
""",
    ).assert_outcomes(passed=1)


def test_a_test_sees_and_sets_its_own_budget(pytester):
    result = run(
        pytester,
        """
@pytest.mark.memory_budget("200 MB")
def test_sees(membudget):
    assert membudget.budget_bytes == 200_000_000

def test_sets(membudget):
    assert membudget.budget_bytes is None
    membudget.budget_bytes = "10 MB"
    bytearray(b"x") * 60_000_000
""",
    )
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["FAILED *::test_sets - peak * > budget 9.54 MiB*"])


def test_a_budget_that_a_fixture_sets_or_that_is_set_on_the_way_holds_as_well(pytester):
    result = run(
        pytester,
        """
@pytest.fixture
def small(membudget):
    membudget.budget_bytes = "10 MB"

@pytest.fixture
def asked_for(request):
    request.getfixturevalue("membudget").budget_bytes = "10 MB"

@pytest.mark.memory_budget("200 MB", total="1 GB")
def test_by_a_fixture(small, membudget):
    assert membudget.budget_bytes == 10_000_000 and membudget.budget.total_bytes == 1_000_000_000
    bytearray(b"x") * 60_000_000

def test_by_one_that_asks(asked_for):
    bytearray(b"x") * 60_000_000

def test_by_itself(request):
    request.getfixturevalue("membudget").budget_bytes = "10 MB"
    bytearray(b"x") * 60_000_000

def test_after_them():
    bytearray(b"x") * 60_000_000
""",
        "--membudget",
    )
    result.assert_outcomes(passed=1, failed=3)
    for test in ("by_a_fixture", "by_one_that_asks", "by_itself"):
        result.stdout.fnmatch_lines([f"FAILED *::test_{test} - peak * > budget 9.54 MiB*"])


def test_membudget_checks_growth_of_a_function(pytester):
    run(
        pytester,
        """
from pytest_membudget import OverBudgetError

kept = []

def test_job(membudget):
    with pytest.raises(OverBudgetError, match="leak"):
        membudget.check_growth(lambda: kept.append(bytes(5000)))
""",
    ).assert_outcomes(passed=1)


def test_synthetic_files_are_made_once_and_shared(pytester):
    run(
        pytester,
        """
seen = []

@pytest.mark.parametrize("turn", [1, 2])
def test_one(synthetic_file, turn):
    file = synthetic_file("100 kB", kind="json", seed=3)
    assert os.stat(file).st_size == file.size_bytes == 100_000
    seen.append((file, os.stat(file).st_mtime_ns))
    assert len(set(seen)) == 1

def test_several(synthetic_files):
    assert [file.size_bytes for file in synthetic_files("1kB..4kB", kind="text")] == [1000, 2000, 4000]
    three = synthetic_files("2 kB", count=3)
    assert len({file.path.read_bytes() for file in three}) == 3

def test_parquet_has_exactly_the_asked_size(synthetic_file):
    file = synthetic_file("150 kB", kind="parquet")
    assert os.stat(file).st_size == file.size_bytes == 150_000

def test_unknown_kind(synthetic_file):
    with pytest.raises(ValueError, match="'exe' is not a kind of file; there are csv"):
        synthetic_file("1 kB", kind="exe")
""",
    ).assert_outcomes(passed=5)
    assert not list(pytester.path.parent.rglob("*.json.rows"))


def test_synthetic_files_serve_fixtures_of_a_wider_scope(pytester):
    run(
        pytester,
        """
@pytest.fixture(scope="session")
def size(synthetic_file, synthetic_files):
    return sum(each.size_bytes for each in (synthetic_file("1 kB"), *synthetic_files(["2 kB", "3 kB"])))

def test_job(size):
    assert size == 6_000
""",
    ).assert_outcomes(passed=1)


def test_synthetic_files_follow_a_scale(pytester):
    run(
        pytester,
        """
@pytest.mark.memory_scales("small")
def test_job(memory_scale, synthetic_files):
    files = synthetic_files(memory_scale)
    assert len(files) == memory_scale.batches
    assert sum(file.size_bytes for file in files) == memory_scale.size_bytes
""",
    ).assert_outcomes(passed=1)


def test_estimate_as_a_budget(pytester):
    result = run(
        pytester,
        """
@pytest.fixture
def file(synthetic_file):
    return synthetic_file("1 MB")

@pytest.mark.memory_budget("estimate")
def test_within(file):
    file.path.read_bytes()

@pytest.mark.memory_budget("estimate")
@pytest.mark.parametrize("memory_estimator", [{"gamma": 1.0, "overhead": "1 MB"}], indirect=True)
def test_over(file, memory_estimator):
    bytearray(b"x") * 60_000_000

@pytest.mark.memory_budget("estimate")
def test_made_too_late(synthetic_file):
    synthetic_file("1 MB")
""",
    )
    result.assert_outcomes(passed=1, failed=2)
    result.stdout.fnmatch_lines(
        ['*take a fixture that returns a path or synthetic_file("1 MB"), or write a size']
    )
    result.stdout.fnmatch_lines(
        ["FAILED *test_over* - peak * > budget 1.91 MiB*", "FAILED *test_made_too_late*needs a file*"]
    )


def test_memory_semaphore_and_estimator_are_configured_by_parameters(pytester):
    run(
        pytester,
        """
@pytest.mark.parametrize("memory_semaphore", ["10 MB"], indirect=True)
@pytest.mark.parametrize("memory_estimator", ["document"], indirect=True)
def test_job(memory_semaphore, memory_estimator):
    assert memory_semaphore.statistics().budget_bytes == 10_000_000
    assert memory_estimator.estimate_file_memory("1 MB") == 512_000_000

def test_defaults(memory_semaphore, memory_estimator):
    assert memory_semaphore.statistics().budget_bytes > 0
    assert memory_estimator.gamma == 3.0
""",
    ).assert_outcomes(passed=2)


@pytest.mark.processes
def test_fallback_executor_runs_files_in_real_processes(pytester):
    pytester.makepyfile(jobs="import os\n\ndef pid(path):\n    return os.getpid()\n")
    pytester.makepyfile(
        test_it="""
import os
import jobs
import pytest

@pytest.mark.memory_scales("micro")
def test_job(fallback_executor, synthetic_files, memory_scale):
    batch = fallback_executor.run(jobs.pid, synthetic_files("10 kB", count=5))
    assert len(batch.values) == 5
    assert os.getpid() not in batch.values
    assert batch.max_in_flight == memory_scale.in_flight
"""
    )
    # pytester forgets what the first run loaded: workers of the second must find it all the same.
    for _ in range(2):
        pytester.runpytest().assert_outcomes(passed=1)
    result = pytester.runpytest_subprocess("--membudget-report=a.json")
    result.stdout.fnmatch_lines(["Batches", "test_it.py::test_job?micro?  *5 * 0 * 0 *process"])
    (batch,) = json.loads((pytester.path / "a.json").read_text())["batches"]
    assert (batch["title"], batch["inputs"], batch["failed"]) == ("test_it.py::test_job[micro]", 5, 0)


MONITORED = """
@pytest.mark.memory_budget("500 MB")
def test_job(memory_monitor):
    memory_monitor.register_cleanup_callback(lambda: None)
    for done in range(20):
        memory_monitor.progress(done)

@pytest.mark.parametrize("memory_monitor", ["1 B", {"limit": "1 GB", "label": "<nightly>"}], indirect=True)
@pytest.mark.memory_budget("500 MB")
def test_limit(memory_monitor):
    memory_monitor.check_memory_and_cleanup()
"""


@pytest.mark.processes
@pytest.mark.parametrize("workers", [(), ("-p", "xdist", "-n2")])
def test_what_a_memory_monitor_saw_is_in_the_report(pytester, workers):
    pytester.makepyfile(test_it="import pytest\n" + MONITORED)
    result = pytester.runpytest_subprocess("--membudget-report=a.json", "--membudget-report=a.md", *workers)
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(["Monitors"])
    seen = {each["label"]: each for each in json.loads((pytester.path / "a.json").read_text())["monitors"]}
    assert set(seen) == {"test_it.py::test_job", "test_it.py::test_limit[1 B]", "<nightly>"}
    assert len(seen["test_it.py::test_job"]["cleanups"]) == 2
    assert seen["test_it.py::test_job"]["progress"] == 19
    assert seen["test_it.py::test_limit[1 B]"]["cleanups"][0]["emergency"]
    assert "## Monitors" in (pytester.path / "a.md").read_text()


def test_memory_monitor_needs_no_report(pytester):
    run(pytester, MONITORED.replace('@pytest.mark.memory_budget("500 MB")', "")).assert_outcomes(passed=3)


def test_memory_estimator_takes_a_calibration_that_the_project_keeps(pytester):
    from pytest_membudget import fit_points
    from pytest_membudget.calibration.store import save_named

    save_named(
        fit_points([(size, 4 * size) for size in (10**6, 2 * 10**6, 4 * 10**6)]), "parser", pytester.path
    )
    run(
        pytester,
        """
@pytest.mark.parametrize("memory_estimator", ["parser", {"calibration": "parser", "aim": "cheap"}], indirect=True)
def test_job(memory_estimator):
    assert 12_000_000 <= memory_estimator.estimate_file_memory("3 MB") < 12_500_000

@pytest.mark.parametrize("memory_estimator", ["parses"], indirect=True)
def test_unknown(memory_estimator): ...
""",
    ).assert_outcomes(passed=2, errors=1)


def test_a_stale_calibration_warns_and_is_refused_under_strict(pytester):
    import msgspec

    from pytest_membudget import fit_points
    from pytest_membudget.calibration.model import Calibration
    from pytest_membudget.calibration.store import save_named
    from pytest_membudget.records.report import Environment

    file = fit_points([(size, 4 * size) for size in (10**6, 2 * 10**6, 4 * 10**6)]).file
    elsewhere = msgspec.structs.replace(file, environment=Environment(system="Plan 9"))
    save_named(Calibration(elsewhere), "parser", pytester.path)
    test = """
@pytest.mark.parametrize("memory_estimator", ["parser"], indirect=True)
def test_job(memory_estimator): ...
"""
    run(pytester, test).stdout.fnmatch_lines(["*calibration 'parser': foreign or stale*'Plan 9'*"])
    result = run(pytester, test, "--membudget-strict")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*refused under --membudget-strict*"])


@pytest.mark.processes
def test_membudget_calibrates_a_function_of_the_test_module(pytester):
    run(
        pytester,
        """
def read(path):
    return bytearray(5 * os.stat(path).st_size), open(path, "rb").read()

def test_job(membudget):
    found = membudget.calibrate(read, kind="text", sizes=("1 MB", "3 MB"), repeats=2)
    assert 5 < found.gamma < 8
    assert found.bound("2 MB") >= 12_000_000
""",
    ).assert_outcomes(passed=1)
