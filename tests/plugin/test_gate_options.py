"""The regression gate through pytest: baseline, tolerance, fresh samples."""

import json

import pytest

GATE = "--membudget-baseline=memory.json"


def project(pytester, mib, body=""):
    pytester.makepyfile(test_it=f"def test_job():\n    bytearray(b'x') * ({mib} << 20)\n{body}")


def baseline(pytester, *options, samples=1):
    result = pytester.runpytest(
        GATE, "--membudget-update-baseline", f"--membudget-samples={samples}", *options
    )
    assert result.ret == 0
    return json.loads((pytester.path / "memory.json").read_text())


def test_the_baseline_is_written_and_an_unchanged_test_passes(pytester):
    project(pytester, 40)
    made = baseline(pytester)
    assert made["kind"] == "baseline"
    assert [test["nodeid"] for test in made["tests"]] == ["test_it.py::test_job"]
    pytester.runpytest(GATE).assert_outcomes(passed=1)


@pytest.mark.processes
def test_a_regression_fails_by_name_after_fresh_samples_agreed(pytester):
    project(pytester, 40)
    baseline(pytester)
    project(pytester, 80)
    result = pytester.runpytest(GATE, "--membudget-samples=2", "--membudget-report=a.json")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["FAILED *::test_job - regressed: peak * MiB, baseline *"])
    (test,) = json.loads((pytester.path / "a.json").read_text())["tests"]
    assert test["verdict"] == "regressed"
    assert len(test["samples_bytes"]) == 2


@pytest.mark.processes
def test_a_spike_that_fresh_runs_do_not_repeat_is_not_called(pytester):
    project(pytester, 40)
    baseline(pytester)
    pytester.makepyfile(
        test_it="""
        import os

        def test_job():
            first = os.path.exists("first")
            open("first", "w").close()
            bytearray(b"x") * ((40 if first else 120) << 20)
        """
    )
    pytester.runpytest(GATE, "--membudget-samples=2").assert_outcomes(passed=1)


NEEDS_ANOTHER = """
loaded = []

def test_first():
    loaded.append(1)

def test_job():
    assert loaded
    bytearray(b"x") * ({mib} << 20)
"""


@pytest.mark.processes
def test_a_test_that_fails_in_a_fresh_process_is_undecided_and_said_to_be(pytester):
    pytester.makepyfile(test_it=NEEDS_ANOTHER.format(mib=40))
    baseline(pytester)
    pytester.makepyfile(test_it=NEEDS_ANOTHER.format(mib=80))
    result = pytester.runpytest(GATE, "--membudget-samples=1", "--membudget-report=a.json")
    result.assert_outcomes(passed=2)
    job = json.loads((pytester.path / "a.json").read_text())["tests"][1]
    assert job["verdict"] == "inconclusive"
    (why,) = (caveat for caveat in job["caveats"] if caveat.startswith("undecided: peak "))
    assert "a run in a fresh process did not pass" in why
    strict = pytester.runpytest(GATE, "--membudget-samples=1", "--membudget-strict")
    strict.assert_outcomes(passed=1, failed=1)
    strict.stdout.fnmatch_lines(["FAILED *::test_job - undecided: peak * MiB, baseline *"])


def test_the_report_names_the_tolerance_also_where_it_is_the_default(pytester):
    project(pytester, 0)
    baseline(pytester)
    pytester.runpytest(GATE, "--membudget-report=a.json").assert_outcomes(passed=1)
    assert json.loads((pytester.path / "a.json").read_text())["baseline"]["tolerance"] == "10% + 1.00 MiB"


COLD = """
loaded = []

def test_first():
    load()

def test_second():
    load()

def load():
    held = bytearray({extra} << 20)
    if not loaded:
        loaded.append(bytearray(b"x") * (40 << 20))
"""


@pytest.mark.processes
def test_what_another_test_had_loaded_in_the_baselines_session_is_no_regression(pytester):
    pytester.makepyfile(test_it=COLD.format(extra=0))
    made = baseline(pytester)
    assert [len(test.get("samples_bytes", ())) for test in made["tests"]] == [1, 0]
    pytester.runpytest(GATE, "--membudget-samples=1", "-k", "second").assert_outcomes(passed=1)


@pytest.mark.processes
def test_a_test_that_took_next_to_nothing_can_regress(pytester):
    pytester.makepyfile(test_it=COLD.format(extra=0))
    baseline(pytester)
    pytester.makepyfile(test_it=COLD.replace("bytearray({extra} << 20)", "bytearray(b'x') * (20 << 20)"))
    result = pytester.runpytest(GATE, "--membudget-samples=1", "-k", "second")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*run twice, the second time measured, in 1 fresh process: 20*MiB"])


def test_the_tolerance_is_the_callers(pytester):
    project(pytester, 40)
    baseline(pytester)
    project(pytester, 80)
    pytester.runpytest(GATE, "--membudget-tolerance=10% + 100 MiB").assert_outcomes(passed=1)


def test_warn_tells_of_a_regression_and_fails_nothing(pytester):
    project(pytester, 40)
    baseline(pytester)
    project(pytester, 80)
    result = pytester.runpytest(GATE, "--membudget-warn", "--membudget-samples=1")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["membudget: *::test_job: regressed: *"])


def test_new_gone_and_skipped_tests_are_told(pytester):
    project(pytester, 0, "def test_old(): pass\ndef test_skipped(): pass")
    baseline(pytester)
    skipped = "import pytest\n@pytest.mark.skip\ndef test_skipped(): pass\ndef test_added_later_on(): pass"
    project(pytester, 0, skipped)
    pytester.runpytest(GATE, "--membudget-report=a.json")
    found = json.loads((pytester.path / "a.json").read_text())["baseline"]
    assert found["new"] == ["test_it.py::test_added_later_on"]
    assert found["gone"] == ["test_it.py::test_old"]
    assert found["skipped"] == ["test_it.py::test_skipped"]


def test_an_update_of_a_part_keeps_the_rest(pytester):
    project(pytester, 0, "def test_other(): pass")
    baseline(pytester)
    made = baseline(pytester, "-k", "other")
    assert [test["nodeid"] for test in made["tests"]] == ["test_it.py::test_job", "test_it.py::test_other"]


@pytest.mark.processes
def test_a_baseline_holds_fresh_figures_of_tests_that_take_something(pytester):
    project(pytester, 40)
    (test,) = baseline(pytester, samples=2)["tests"]
    assert len(test["samples_bytes"]) == 2


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            None,
            "*there is no baseline at memory.json; make one with pytest --membudget-baseline=memory.json --*",
        ),
        ("{", "*memory.json is not a membudget baseline*"),
        (
            '{"format": "membudget-report", "version": 1, "kind": "report", "tests": []}',
            '*kind "report", not a baseline*',
        ),
        ('{"format": "membudget-report", "version": 2, "kind": "baseline"}', "*memory.json*version*"),
    ],
)
def test_an_unreadable_baseline_is_a_usage_error_before_anything_runs(pytester, content, said):
    pytester.makepyfile(test_it="def test_job(): open('ran', 'w')")
    if content is not None:
        (pytester.path / "memory.json").write_text(content)
    result = pytester.runpytest(GATE)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([said])
    assert not (pytester.path / "ran").exists()
    assert content is None or (pytester.path / "memory.json").read_text() == content


def test_a_foreign_baseline_is_a_caveat_and_refused_under_strict(pytester):
    project(pytester, 40)
    made = baseline(pytester)
    made["environment"]["python"] = "3.0.1"
    (pytester.path / "memory.json").write_text(json.dumps(made))
    result = pytester.runpytest(GATE, "--membudget-report")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*Python 3.0* there*"])
    assert str(result.stdout).count("there, ") == 1
    result = pytester.runpytest(GATE)
    result.stdout.fnmatch_lines(
        ["membudget: the baseline is from another environment: Python 3.0 there, *here"]
    )
    project(pytester, 80)
    result = pytester.runpytest(GATE, "--membudget-samples=1")
    result.stdout.fnmatch_lines(
        ["*note      the baseline is from another environment: Python 3.0 there, *here"]
    )
    assert pytester.runpytest(GATE, "--membudget-strict").ret == pytest.ExitCode.USAGE_ERROR


def test_a_baseline_that_cannot_be_written_is_a_usage_error_before_anything_runs(pytester):
    pytester.makepyfile(test_it="def test_job(): open('ran', 'w')")
    result = pytester.runpytest("--membudget-baseline=test_it.py/memory.json", "--membudget-update-baseline")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--membudget-baseline: test_it.py/memory.json cannot be written*"])
    assert not (pytester.path / "ran").exists()


def test_an_update_without_a_baseline_is_a_usage_error(pytester):
    result = pytester.runpytest("--membudget-update-baseline")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--membudget-update-baseline has no baseline to write*"])
