"""The baseline and a suite that changes: tests that move, come, go, or belong to another job."""

import json

import pytest

GATE = "--membudget-baseline=memory.json"


@pytest.fixture
def suite(pytester):
    """Two files of two tests each, and their baseline."""
    (pytester.path / "tests").mkdir()
    write(pytester, "test_a", one=0, two=0)
    write(pytester, "test_b", three=0, four=0)
    update(pytester)
    return pytester


def write(pytester, name, **sizes):
    body = [f"def test_{test}(): bytearray(b'x') * ({mib} << 20)\n" for test, mib in sizes.items()]
    (pytester.path / "tests" / f"{name}.py").write_text("".join(body))


def update(pytester, *arguments):
    pytester.runpytest(GATE, "--membudget-update-baseline", "--membudget-samples=1", *arguments)
    tests = json.loads((pytester.path / "memory.json").read_text())["tests"]
    return [test["nodeid"].removeprefix("tests/test_") for test in tests]


ALL = ["a.py::test_one", "a.py::test_two", "b.py::test_four", "b.py::test_three"]


@pytest.mark.parametrize(
    "arguments",
    [("tests",), ("tests/test_a.py",), ("-m", "not slow"), ("-p", "xdist.plugin", "-n1", "tests")],
)
def test_a_test_is_gone_where_its_file_was_in_reach(suite, arguments):
    write(suite, "test_a", one=0)
    assert update(suite, *arguments) == [ALL[0], *ALL[2:]]


@pytest.mark.parametrize("arguments", [("tests/test_b.py",), ("tests/test_a.py::test_one",)])
def test_out_of_reach_nothing_is_gone(suite, arguments):
    write(suite, "test_a", one=0)
    assert update(suite, *arguments) == ALL


def test_from_a_folder_below_nothing_beside_it_is_gone(suite, monkeypatch):
    (suite.path / "tests" / "deep").mkdir()
    suite.makefile(".ini", pytest="[pytest]")
    monkeypatch.chdir(suite.path / "tests" / "deep")
    suite.makepyfile(test_c="def test_c(): pass").rename("test_c.py")
    suite.runpytest("--membudget-baseline=../../memory.json", "--membudget-update-baseline")
    assert len(json.loads((suite.path / "memory.json").read_text())["tests"]) == 5


@pytest.mark.parametrize("workers", [(), ("-p", "xdist.plugin", "-n1")])
@pytest.mark.parametrize(
    "conftest",
    [
        "def pytest_collection_modifyitems(items): items[:] = items[::2]  # one job of two",
        "collect_ignore = ['tests/test_b.py']",
        "def pytest_runtest_teardown(session): session.shouldstop = 'enough'",
    ],
)
def test_what_another_job_runs_is_not_gone(suite, conftest, workers):
    suite.makeconftest(conftest)
    assert update(suite, *workers) == ALL


@pytest.mark.parametrize("workers", [(), ("-p", "xdist.plugin", "-n1")])
def test_the_tests_of_a_skipped_module_are_not_gone(suite, workers):
    (suite.path / "tests" / "test_b.py").write_text("import pytest\npytest.importorskip('no_such_thing')\n")
    assert update(suite, *workers) == ALL


@pytest.mark.processes
def test_an_interrupted_update_loses_nothing(suite):
    (suite.path / "tests" / "test_b.py").write_text(
        "def test_three(): raise KeyboardInterrupt\ndef test_four(): pass\n"
    )
    suite.runpytest_subprocess(GATE, "--membudget-update-baseline")
    assert update(suite, "--co") == ALL


@pytest.mark.processes
@pytest.mark.parametrize("workers", [(), ("-p", "xdist.plugin", "-n1")])
def test_a_test_in_another_file_is_held_to_its_old_line(suite, workers):
    (suite.path / "tests" / "test_b.py").unlink()
    write(suite, "test_c", three=50, four=0)
    result = suite.runpytest(GATE, "--membudget-samples=1", *workers)
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(["FAILED *test_c.py::test_three - regressed: peak *, baseline *"])


def test_one_line_tells_that_the_suite_has_changed(suite):
    write(suite, "test_a", one=0, six=20)
    result = suite.runpytest(GATE)
    result.stdout.fnmatch_lines(
        ["membudget: memory.json differs from this suite: 1 new, 1 gone; --membudget-report names them, *"]
    )
    suite.runpytest(GATE, "tests/test_b.py").stdout.no_fnmatch_line("*gone*")


def test_a_few_tests_taken_elsewhere_do_not_make_it_a_baseline_of_that_place(suite):
    file = suite.path / "memory.json"
    file.write_text(file.read_text().replace('"kernel": "', '"kernel": "4.'))
    kernel = json.loads(file.read_text())["environment"]["kernel"]
    result = suite.runpytest(GATE, "--membudget-update-baseline", "--membudget-samples=1", "-k", "one")
    result.stdout.fnmatch_lines(
        [
            "membudget: baseline: memory.json (4 tests); 3 of them keep figures from another environment: kernel *"
        ]
    )
    assert json.loads(file.read_text())["environment"]["kernel"] == kernel
    update(suite)
    assert json.loads(file.read_text())["environment"]["kernel"] != kernel
