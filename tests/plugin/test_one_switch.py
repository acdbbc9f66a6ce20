"""Leaving it out: for a whole session, for one test; and baselines that are not there yet, or one for each Python."""

import json
import sys

import pytest

OVER = """
import pytest

pytestmark = pytest.mark.memory_budget("1 MiB")

def test_over():
    assert len(bytearray(b"x") * 20_000_000)
"""
STRICT = """
[tool.pytest.ini_options]
addopts = ["--strict-markers", "--strict-config", "--membudget-report=out/report.json", "-p", "no:cacheprovider"]
membudget_baseline = "memory.json"
membudget_stop_at = "80%"
"""


def test_one_option_switches_everything_off_under_strict_settings(pytester):
    pytester.makepyprojecttoml(STRICT)
    pytester.makepyfile(test_it=OVER)
    result = pytester.runpytest("--no-membudget")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.no_fnmatch_line("*membudget:*")
    left = {path.name for path in pytester.path.iterdir()} - {"__pycache__"}  # which is Python's own
    assert left == {"pyproject.toml", "test_it.py"}


def test_tests_that_use_our_fixtures_still_run(pytester):
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.memory_scales("micro", "small")
        def test_scale(memory_scale):
            assert memory_scale.rows

        @pytest.mark.memory_budget("1 MiB", isolate=True)
        def test_blocks(membudget, synthetic_file):
            with membudget.measuring() as probe:
                kept = bytearray(b"x") * 20_000_000
            assert probe.measurement.peak_bytes > 10_000_000
            membudget.check(probe.measurement, "1 MiB")
            assert synthetic_file("1 kB").size_bytes == 1000
        """
    )
    pytester.runpytest("--no-membudget").assert_outcomes(passed=3)
    assert pytester.runpytest(
        "--no-membudget", "--membudget-scales=micro", "-k", "scale"
    ).parseoutcomes() == {
        "passed": 1,
        "deselected": 1,
    }


@pytest.mark.processes
def test_workers_are_switched_off_too(pytester):
    pytest.importorskip("xdist")
    pytester.makepyfile(test_it=OVER)
    result = pytester.runpytest("-p", "xdist", "-n", "1", "--no-membudget", "--membudget-report")
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*membudget:*")


def test_one_test_is_left_out_of_its_module_s_budget_and_of_the_report(pytester):
    pytester.makepyfile(
        test_it=OVER
        + """
@pytest.mark.memory_budget(False)
def test_left_out():
    assert len(bytearray(b"x") * 20_000_000)
"""
    )
    result = pytester.runpytest("--membudget-report=report.json")
    result.assert_outcomes(passed=1, failed=1)
    tests = json.loads((pytester.path / "report.json").read_text())["tests"]
    assert [test["nodeid"] for test in tests] == ["test_it.py::test_over"]


def test_a_test_has_a_tolerance_of_its_own(pytester):
    project = """
        import pytest

        @pytest.mark.memory_budget(tolerance="300%")
        def test_wide():
            assert len(bytearray(b"x") * {size})

        def test_narrow():
            assert len(bytearray(b"x") * {size})
    """
    gate = ("--membudget-baseline=memory.json", "--membudget-samples=1", "-p", "no:cacheprovider")
    pytester.makepyfile(test_it=project.format(size=10_000_000))
    pytester.runpytest(*gate, "--membudget-update-baseline").assert_outcomes(passed=2)
    pytester.makepyfile(test_it=project.format(size=20_000_000))
    result = pytester.runpytest(*gate)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["FAILED test_it.py::test_narrow*"])


@pytest.mark.parametrize(
    ("argument", "complaint"),
    [
        ("tolerance=10", "argument 'tolerance' is 10; write a percentage and a size"),
        ("tolerance='ten'", "argument 'tolerance': 'ten' is not a tolerance"),
        ("False, total='1 GB'", "argument 'peak': False is not a size"),
        ("True", "argument 'peak': True is not a size"),
    ],
)
def test_what_is_neither_is_refused(pytester, argument, complaint):
    pytester.makepyfile(f"import pytest\n@pytest.mark.memory_budget({argument})\ndef test_a(): pass")
    result = pytester.runpytest()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*{complaint}*"])


def test_a_baseline_of_the_ini_file_that_is_not_there_yet_is_told_and_then_made(pytester):
    pytester.makepyprojecttoml('[tool.pytest.ini_options]\nmembudget_baseline = "ci/memory.json"\n')
    pytester.makepyfile("def test_a(): pass")
    result = pytester.runpytest("-q")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(
        [
            "membudget: there is no baseline at ci/memory.json yet, so nothing is compared; make it with pytest *-update-baseline"
        ]
    )
    assert pytester.runpytest("-q", "--membudget-strict").ret == pytest.ExitCode.USAGE_ERROR
    assert pytester.runpytest("-q", "--membudget-update-baseline").ret == pytest.ExitCode.OK
    assert (pytester.path / "ci" / "memory.json").is_file()
    pytester.runpytest("-q").stdout.no_fnmatch_line("*no baseline*")


def test_each_python_and_platform_can_have_a_baseline_of_its_own(pytester):
    pytester.makepyfile("def test_a(): pass")
    path = "--membudget-baseline=memory/{platform}-{python}.json"
    assert pytester.runpytest(path, "--membudget-update-baseline").ret == pytest.ExitCode.OK
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert (pytester.path / "memory" / f"{sys.platform}-{version}.json").is_file()
    result = pytester.runpytest("--membudget-baseline={os}.json")
    result.stderr.fnmatch_lines(["*unknown placeholder {os}; there are {python} and {platform}*"])


def test_a_test_that_is_only_warned_of_is_compared_and_its_baseline_has_samples(pytester):
    gate = ("--membudget-warn", "--membudget-baseline=memory.json", "--membudget-samples=2", "-q")
    pytester.makepyfile(test_it=OVER)
    pytester.runpytest(*gate, "--membudget-update-baseline").assert_outcomes(passed=1)
    (test,) = json.loads((pytester.path / "memory.json").read_text())["tests"]
    assert len(test["samples_bytes"]) == 2
    pytester.makepyfile(test_it=OVER.replace("20_000_000", "200_000_000"))
    result = pytester.runpytest(*gate)
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["*1 regressed*"])
