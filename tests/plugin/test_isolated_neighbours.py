"""isolate=True beside plugins and options that are the whole session's: its interpreter runs a part of it only."""

import pytest

HEAD = """
import logging
import pytest

isolated = pytest.mark.memory_budget("50 MiB", isolate=True)
"""


def run(pytester, body, *args):
    pytester.makepyfile(test_it=HEAD + body)
    return pytester.runpytest(*args)


def test_plugins_that_choose_tests_do_not_take_away_the_only_one(pytester):
    # As pytest-split and others do: of the tests they are given, every second one.
    pytester.makeconftest("def pytest_collection_modifyitems(items): items[:] = items[1::2]")
    result = run(
        pytester,
        """
def test_first(): pass

@isolated
def test_second(): bytearray(b"x") * 80_000_000
""",
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["FAILED *::test_second - peak 7*MiB > budget 50.0 MiB*"])


def test_it_has_the_seed_that_the_session_shows(pytester):
    # As pytest-randomly does: a seed of its own for each session that was given none.
    pytester.makeconftest(
        """
        import os, pathlib

        def pytest_addoption(parser):
            parser.addoption("--randomly-seed", dest="randomly_seed", default="default")

        def pytest_configure(config):
            if config.option.randomly_seed == "default":
                config.option.randomly_seed = os.getpid()
            shown = pathlib.Path("shown.txt")
            if not shown.exists():
                shown.write_text(str(config.option.randomly_seed))
        """
    )
    result = run(
        pytester,
        """
@isolated
def test_job(pytestconfig):
    with open("shown.txt") as shown:
        assert pytestconfig.getoption("randomly_seed") == int(shown.read())
""",
    )
    result.assert_outcomes(passed=1)


@pytest.mark.parametrize("mode", ["w", "a"])
def test_its_log_stands_in_the_log_file_in_its_place(pytester, mode):
    log = pytester.path / "session.log"
    log.write_text("before\n")
    result = run(
        pytester,
        """
def test_first(): logging.warning("first")

@isolated
def test_job(): logging.warning("isolated")

def test_last(): logging.warning("last")
""",
        f"--log-file={log}",
        f"--log-file-mode={mode}",
        "--log-file-format=%(message)s",
    )
    result.assert_outcomes(passed=3)
    assert log.read_text() == ("before\n" if mode == "a" else "") + "first\nisolated\nlast\n"


@pytest.mark.parametrize("workers", [(), ("-p", "xdist.plugin", "-n1")])
def test_its_lines_count_as_covered_and_those_of_others_still_do(pytester, workers):
    pytester.makepyfile(
        job="""
        def isolated():
            return 1

        def here():
            return 2

        def in_a_child():
            return 3
        """
    )
    pytester.path.joinpath(".coveragerc").write_text("[run]\npatch = subprocess\n")
    result = run(
        pytester,
        """
import subprocess, sys, job

def test_child():
    subprocess.run([sys.executable, "-c", "import job; job.in_a_child()"], check=True)

def test_here(): job.here()

@isolated
def test_job(): job.isolated()
""",
        *workers,
        "-p",
        "pytest_cov.plugin",
        "--cov=job",
        "--cov-fail-under=100",
    )
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(["*Total coverage: 100.00%*"])
    assert not list(pytester.path.glob(".coverage.*"))


def test_the_sessions_cache_stays_though_it_began_with_clearing(pytester):
    result = run(
        pytester,
        """
def test_first(pytestconfig): pytestconfig.cache.set("mine/value", 1)

@isolated
def test_job(pytestconfig): assert pytestconfig.cache.get("mine/value", None) == 1
""",
        "--cache-clear",
    )
    result.assert_outcomes(passed=2)
