"""memory_scales runs a test at several scales and joins them in one table."""

import json

import pytest

JOB = """
import pytest

@pytest.mark.memory_scales({arguments})
def test_job(memory_scale):
    bytearray(b"x") * ({bytes})
"""


def run(pytester, arguments, size, *options):
    pytester.makepyfile(test_it=JOB.format(arguments=arguments, bytes=size))
    return pytester.runpytest_subprocess("--membudget-report=a.json", *options)


def table(pytester):
    (found,) = json.loads((pytester.path / "a.json").read_text())["scales"]
    return found


def test_each_scale_is_a_test_of_its_own_and_a_row_of_the_table(pytester):
    result = run(pytester, "'small', 'micro', 'medium'", "4 * memory_scale.size_bytes", "-v")
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(["*test_job?micro?*", "*test_job?small?*", "*test_job?medium?*"])
    rows = table(pytester)["rows"]
    assert [row["scale"]["name"] for row in rows] == ["micro", "small", "medium"]
    assert rows[2]["predicted_bytes"] == pytest.approx(32_000_000, rel=0.2)
    assert table(pytester)["law"]["slope"] == pytest.approx(4, rel=0.2)


def test_a_law_that_holds_passes(pytester):
    run(
        pytester, "'micro', 'small', 'medium', law='linear', at_most='8 B/B'", "4 * memory_scale.size_bytes"
    ).assert_outcomes(passed=3)


def test_a_law_that_does_not_hold_fails_the_largest_scale(pytester):
    result = run(pytester, "'micro', 'small', 'medium', law='flat'", "4 * memory_scale.size_bytes")
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["FAILED *::test_job?medium? - law=*flat* does not hold*"])


def test_a_scale_is_predicted_by_the_predictors_of_its_marker(pytester):
    squares = "'micro', 'small', 'medium', predictors={'squares': lambda scale: scale.batches**2}"
    result = run(pytester, squares, "4_000_000 * memory_scale.batches**2")
    result.assert_outcomes(passed=3)
    last = table(pytester)["rows"][-1]
    assert last["features"] == [["squares", 16.0]]
    assert last["predicted_bytes"] == pytest.approx(64_000_000, rel=0.2)


def test_a_predictor_that_fails_is_a_usage_error(pytester):
    result = run(pytester, "'micro', predictors={'pages': lambda scale: scale.pages}", "1")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["*memory_scales: the predictor 'pages' fails on Scale*has no attribute 'pages'*"]
    )


def test_the_option_says_which_scales_to_run(pytester):
    result = run(pytester, "'micro', 'small', law='flat'", "1000", "-v", "--membudget-scales=small")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*test_job?small? PASSED*"])


@pytest.mark.parametrize(
    ("arguments", "options"), [("'micro', 'tiny'", []), ("'micro'", ["--membudget-scales=tiny"])]
)
def test_an_unknown_scale_is_a_usage_error(pytester, arguments, options):
    result = run(pytester, arguments, "1", *options)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["*test_it.py::test_job: memory_scales: there is no scale 'tiny'; there are: micro*"]
    )


def test_an_unknown_scale_in_the_option_is_one_where_no_test_takes_a_scale_too(pytester):
    pytester.makepyfile(test_it="def test_plain():\n    pass")
    result = pytester.runpytest("--membudget-scales=tiny")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--membudget-scales: there is no scale 'tiny'; there are: micro*"])


def test_scales_come_from_pyproject_and_the_hook_too(pytester):
    pytester.makepyprojecttoml('[tool.membudget.scales.night]\nrows = 7\nsize = "1 MB"\n')
    pytester.makeconftest(
        """
        from pytest_membudget import Scale

        def pytest_membudget_scales(scales):
            scales["day"] = Scale(name="day", rows=9, size_bytes=10, batches=1, workers=1, in_flight=1)
        """
    )
    run(pytester, "'night', 'day'", "memory_scale.rows").assert_outcomes(passed=2)
    assert [row["scale"]["rows"] for row in table(pytester)["rows"]] == [9, 7]


def test_a_scale_in_pyproject_that_makes_no_sense_is_a_usage_error(pytester):
    pytester.makepyprojecttoml('[tool.membudget.scales.night]\nrows = "many"\n')
    result = run(pytester, "'micro'", "1")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*scale 'night' has rows='many'*"])


def test_other_parameters_make_tables_of_their_own(pytester):
    pytester.makepyfile(
        test_it="""
        import pytest

        @pytest.mark.parametrize("kind", ["csv", "json"])
        @pytest.mark.memory_scales("micro", "small")
        def test_job(memory_scale, kind):
            pass
        """
    )
    pytester.runpytest("--membudget-report=a.json").assert_outcomes(passed=4)
    titles = [found["title"] for found in json.loads((pytester.path / "a.json").read_text())["scales"]]
    assert titles == ["test_it.py::test_job[kind='csv']", "test_it.py::test_job[kind='json']"]


@pytest.mark.processes
def test_a_job_of_the_fixture_tells_the_table_what_its_tasks_took(pytester):
    # Longer than a reading takes, and more than the fork server on its way up, which would be the peak else.
    pytester.makepyfile(
        jobs="""
        import time

        def held(path):
            block = b"x" * 30_000_000 + path.read_bytes() * 4
            time.sleep(0.3)
            return len(block)
        """
    )
    pytester.makepyfile(
        test_it="""
        import jobs
        import pytest

        @pytest.mark.memory_scales("micro", "small", "medium")
        def test_job(fallback_executor, synthetic_files, memory_scale):
            files = [file.path for file in synthetic_files(memory_scale, kind="text")]
            assert len(fallback_executor.run(jobs.held, files).values) == memory_scale.batches
        """
    )
    pytester.runpytest_subprocess("--membudget-report=a.json").assert_outcomes(passed=3)
    rows = table(pytester)["rows"]
    assert [row["tasks"]["count"] for row in rows] == [1, 2, 4]
    assert all(row["breakdown"]["workers_base_bytes"] > 0 for row in rows)
    assert rows[2]["peak_bytes"] <= rows[2]["predicted_bound_bytes"]
