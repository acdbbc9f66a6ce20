"""What a session tells at its end, however it ended."""

import gc
import json

import pytest

PROJECT = """
import pytest

def test_free():
    pass

@pytest.mark.memory_budget("1 GiB")
def test_marked():
    pass

@pytest.mark.skip
@pytest.mark.memory_budget("1 GiB")
def test_skipped():
    pass
"""


def figures_in(path):
    return {test["nodeid"].partition("::")[2]: test for test in json.loads(path.read_text())["tests"]}


def test_each_asked_report_is_written_and_the_tables_shown(pytester):
    pytester.makepyfile(test_it=PROJECT)
    result = pytester.runpytest("--membudget-report=a.json", "--membudget-report", "b.md")
    result.stdout.fnmatch_lines(
        ["*= membudget =*", "*test_marked*", "membudget: report: *a.json", "membudget: report: *b.md"]
    )
    assert "test_marked" in (pytester.path / "b.md").read_text()
    tests = figures_in(pytester.path / "a.json")
    assert {name: test["outcome"] for name, test in tests.items()} == {
        "test_free": "passed",
        "test_marked": "passed",
        "test_skipped": "skipped",
    }
    assert tests["test_marked"]["verdict"] == "within"
    assert tests["test_free"]["verdict"] == "none"
    assert tests["test_skipped"]["peak_bytes"] is None
    assert tests["test_marked"]["line"] == 6


def test_a_following_word_with_another_ending_is_a_test_path(pytester):
    pytester.makepyfile(test_a="def test_a(): pass", test_b="def test_b(): pass")
    result = pytester.runpytest("-v", "--membudget-report", "test_b.py", "test_a.py")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["test_b.py::test_b PASSED*", "test_a.py::test_a PASSED*"])


def test_without_options_only_marked_tests_are_measured(pytester):
    pytester.makepyfile(test_it=PROJECT)
    pytester.runpytest().stdout.fnmatch_lines(["membudget: 1 test measured*"])


def test_a_session_without_markers_and_options_says_nothing(pytester):
    pytester.makepyfile("def test_free(): pass")
    pytester.runpytest().stdout.no_fnmatch_line("*membudget:*")


@pytest.mark.parametrize(
    ("path", "said"),
    [("test_file.py/a.json", "*test_file.py/a.json cannot be written*"), ("a.pdf", "*not found: *a.pdf*")],
)
def test_a_report_that_cannot_be_written_fails_before_the_tests(pytester, path, said):
    pytester.makepyfile(test_file="def test_free(): open('ran', 'w')")
    result = pytester.runpytest("--membudget-report", path)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([said])
    assert not (pytester.path / "ran").exists()


@pytest.mark.parametrize(
    ("ending", "arguments"),
    [
        ("__import__('os').kill(__import__('os').getpid(), 2)", []),
        ("assert 0", ["-x"]),
        ("import pytest; pytest.exit('enough')", []),
    ],
)
def test_what_was_measured_is_written_however_the_session_ends(pytester, ending, arguments):
    pytester.makepyfile(test_it=f"def test_one(): pass\ndef test_two(): {ending}\ndef test_three(): pass")
    pytester.runpytest_subprocess("--membudget-report=a.json", *arguments)
    assert figures_in(pytester.path / "a.json")["test_one"]["peak_bytes"] is not None


def test_an_internal_error_does_not_lose_what_was_measured(pytester):
    pytester.makeconftest(
        """
        def pytest_runtest_logfinish(nodeid):
            if "two" in nodeid:
                raise RuntimeError("broken plugin")
        """
    )
    pytester.makepyfile(test_it="def test_one(): pass\ndef test_two(): pass")
    result = pytester.runpytest("--membudget-report=a.json")
    assert result.ret == pytest.ExitCode.INTERNAL_ERROR
    assert figures_in(pytester.path / "a.json")["test_one"]["outcome"] == "passed"


def test_junit_gets_peak_and_verdict_of_each_measured_test(pytester):
    pytester.makepyfile(test_it=PROJECT)
    pytester.runpytest("--junitxml=junit.xml")
    text = (pytester.path / "junit.xml").read_text()
    assert text.count('<property name="membudget_peak_bytes"') == 1
    assert '<property name="membudget_verdict" value="within"' in text


def test_github_gets_a_step_summary_and_annotations(pytester, monkeypatch):
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(pytester.path / "summary.md"))
    pytester.makepyfile(
        test_it="""
        import pytest

        @pytest.mark.memory_budget("1 MiB")
        def test_over():
            bytearray(b"x") * 40_000_000
        """
    )
    result = pytester.runpytest()
    result.stdout.fnmatch_lines(
        ["::error file=test_it.py,line=3,title=*test_it.py%3A%3Atest_over::peak 3* > budget*%0A*"]
    )
    assert "test_over" in (pytester.path / "summary.md").read_text()


def test_warn_fails_nothing_and_says_what_it_would_have(pytester):
    pytester.makepyfile(
        test_it="""
        import pytest

        @pytest.mark.memory_budget("1 MiB")
        def test_over():
            bytearray(b"x") * 40_000_000
        """
    )
    result = pytester.runpytest("--membudget-warn")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["membudget: test_it.py::test_over: peak 3* > budget 1.00 MiB*"])


def test_suggest_prints_markers_with_headroom(pytester):
    pytester.makepyfile(test_it="def test_job(): bytearray(b'x') * 40_000_000")
    result = pytester.runpytest("--membudget-suggest")
    result.stdout.fnmatch_lines(['test_it.py::test_job: @pytest.mark.memory_budget("50 MiB")  # used 3*'])


def test_suggest_says_where_there_is_nothing_to_suggest(pytester):
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.memory_budget("50 MiB")
        def test_job():
            bytearray(b"x") * 40_000_000
        """
    )
    result = pytester.runpytest("--membudget-suggest")
    result.stdout.fnmatch_lines(["*suggested markers*", "none: no test that passed is without a budget*"])


def test_the_hook_is_called_with_the_final_outcome(pytester):
    pytester.makeconftest(
        """
        def pytest_membudget_measured(record):
            print("hook:", record.nodeid, record.outcome, record.peak_bytes is not None)
        """
    )
    pytester.makepyfile(test_it=PROJECT)
    result = pytester.runpytest("-s")
    result.stdout.fnmatch_lines(["*hook: test_it.py::test_marked passed True*"])
    assert result.stdout.str().count("hook:") == 1


def test_the_tables_say_which_tests_left_memory_behind(pytester):
    pytester.makepyfile(
        test_it="""
        kept = []

        def test_keeps():
            kept.append(bytearray(b"x") * 60_000_000)

        def test_clears():
            bytearray(b"x") * 60_000_000
        """
    )
    result = pytester.runpytest("--membudget-report=a.json")
    result.stdout.fnmatch_lines(["Memory that tests retained", "test_it.py::test_keeps *5*MiB*"])
    left = json.loads((pytester.path / "a.json").read_text())["left_behind"]
    assert [each["nodeid"] for each in left] == ["test_it.py::test_keeps"]


def test_a_table_says_what_fixtures_of_many_tests_hold(pytester):
    pytester.makepyfile(
        test_it="""
        import pytest

        @pytest.fixture(scope="session")
        def corpus():
            return bytearray(b"x") * 60_000_000

        @pytest.fixture(scope="module")
        def index(request):
            request.getfixturevalue("corpus")
            return bytearray(b"x") * 30_000_000

        @pytest.fixture
        def page():
            return bytearray(b"x") * 60_000_000

        def test_finds(index, page):
            pass
        """
    )
    result = pytester.runpytest("--membudget-report=a.json", "--membudget-report=a.html")
    result.stdout.fnmatch_lines(["corpus *session *5*MiB *test_it.py::test_finds", "index *module *2*MiB*"])
    held = json.loads((pytester.path / "a.json").read_text())["fixtures"]
    assert [(each["name"], each["scope"]) for each in held] == [("corpus", "session"), ("index", "module")]
    assert held[1]["held_bytes"] == pytest.approx(30_000_000, rel=0.2)
    assert "Memory that fixtures hold" in (pytester.path / "a.html").read_text()


def test_memory_that_ends_with_a_fixture_or_an_interpreter_is_not_left_behind(pytester):
    pytester.makepyfile(
        jobs="""
        kept = []

        def keep(size):
            kept.append(bytearray(b"x") * size)
        """,
        test_it="""
        import pytest
        from jobs import keep

        def test_in_workers(fallback_executor):
            fallback_executor.run(keep, [40_000_000])

        @pytest.mark.memory_budget("1 GiB", isolate=True)
        def test_isolated():
            keep(40_000_000)
        """,
    )
    gc.collect()  # garbage of earlier tests, freed while this one runs, would count against what it retains
    pytester.runpytest("--membudget-report=a.json").assert_outcomes(passed=2)
    report = json.loads((pytester.path / "a.json").read_text())
    assert all(test["retained_bytes"] > 30_000_000 for test in report["tests"])
    assert report["left_behind"] == []


def test_a_session_that_measured_nothing_leaves_the_report_alone_and_says_so(pytester):
    pytester.makepyfile(test_it="def test_it(): pass")
    (pytester.path / "old.json").write_text("old")
    result = pytester.runpytest("--membudget-report=old.json", "-k", "nothing")
    result.stdout.fnmatch_lines(["membudget: no test was measured, so *old.json was left as it was"])
    assert (pytester.path / "old.json").read_text() == "old"
