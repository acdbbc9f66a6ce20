"""One table of options: flag and ini option do the same, each value is read strictly."""

import pytest

from pytest_membudget.plugin.options import OPTIONS

VALUES = {
    "membudget": ("", "true"),
    "membudget-report": ("=out.json", "out.json"),
    "membudget-default": ("=12 MB", "12 MB"),
    "membudget-warn": ("", "true"),
    "membudget-strict": ("", "true"),
    "membudget-baseline": ("=base.json", "base.json"),
    "membudget-history": ("=history.db", "history.db"),
    "membudget-tolerance": ("=5% + 2 MB", "5% + 2 MB"),
    "membudget-samples": ("=3", "3"),
    "membudget-scales": ("=micro,small", "micro,small"),
    "membudget-memray": ("", "true"),
    "membudget-memray-dir": ("=captures", "captures"),
    "membudget-suggest": ("", "true"),
    "membudget-stop-at": ("=80%", "80%"),
    "membudget-interval": ("=4", "4"),
}
CONFTEST = """
from pytest_membudget.plugin.options import read_settings

def pytest_report_header(config):
    return f"settings: {read_settings(config)}"
"""
BASELINE = '{"format": "membudget-report", "version": 1, "kind": "baseline", "tests": []}'


def settings(pytester, *arguments):
    result = pytester.runpytest(*arguments)
    assert result.ret == pytest.ExitCode.OK, result.errlines
    return next(line for line in result.outlines if line.startswith("settings: "))


@pytest.fixture
def project(pytester):
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile("def test_free(): pass")
    (pytester.path / "base.json").write_text(BASELINE)
    return pytester


def test_every_option_of_the_table_is_tried_here():
    assert {option.name for option in OPTIONS if option.in_ini} == set(VALUES)


@pytest.mark.parametrize(
    "option", [option for option in OPTIONS if option.in_ini], ids=lambda option: option.name
)
def test_flag_and_ini_option_do_the_same(project, option):
    flag, ini = VALUES[option.name]
    nothing = settings(project)
    by_flag = settings(project, option.flag + flag)
    project.makepyprojecttoml(f'[tool.pytest.ini_options]\n{option.ini} = "{ini}"\n')
    by_ini = settings(project)
    assert by_flag == by_ini != nothing


def test_the_update_of_the_baseline_is_for_the_command_line_alone(project):
    project.makepyprojecttoml('[tool.pytest.ini_options]\nmembudget_update_baseline = "true"\n')
    project.runpytest("--strict-config").stderr.fnmatch_lines(
        ["*Unknown config option: membudget_update_baseline*"]
    )


def test_a_flag_beats_its_ini_option(project):
    project.makeini("[pytest]\nmembudget_default = 10 MB\n")
    assert "default_bytes=20000000" in settings(project, "--membudget-default=20 MB")


@pytest.mark.parametrize(
    ("written", "shown", "paths"), [("true", True, 0), ("false", False, 0), ("a.md\n  b.json", True, 2)]
)
def test_the_ini_option_for_reports_knows_tables_alone_none_and_paths(project, written, shown, paths):
    project.makeini(f"[pytest]\nmembudget_report =\n  {written}\n")
    line = settings(project)
    assert f"show_tables={shown}" in line
    assert line.partition("report_paths=")[2].partition(")")[0].count("PosixPath") == (1 if paths else 0)


def test_help_has_one_group_with_every_flag(pytester):
    text = pytester.runpytest("--help").stdout.str()
    assert text.count("membudget: memory budgets for tests:") == 1
    assert all(f"  {option.flag}" in text for option in OPTIONS)


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("--membudget-default=12", "--membudget-default: '12' has no unit*"),
        (
            "--membudget-tolerance=much",
            "--membudget-tolerance: 'much' is not a tolerance: *; write a share and a size: \"10% + 1 MiB\"",
        ),
        (
            "--membudget-report=out.doc",
            "--membudget-report: 'out.doc' names no known form; write a path that ends in *",
        ),
        ("--membudget-samples=0", "--membudget-samples: '0' is not a count from 1 to 1000*"),
        ("--membudget-stop-at=150%", "--membudget-stop-at: '150%' is not above 0 and at most 100%*"),
        ("--membudget-interval=fast", "--membudget-interval: 'fast' is not a number*"),
        ("--membudget-interval=0", "--membudget-interval: '0' is out of range*"),
        ("--membudget-scales=micro,", "--membudget-scales: 'micro,' holds an empty name*"),
        ("--membudget-nonsense", "*unrecognized arguments: --membudget-nonsense*"),
    ],
)
def test_a_value_that_cannot_be_read_is_a_usage_error(pytester, argument, said):
    result = pytester.runpytest(argument)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*{said}"])


def test_a_wrong_ini_option_is_named(pytester):
    pytester.makeini("[pytest]\nmembudget_default = 12\nmembudget_report = out.pdf\n")
    pytester.runpytest().stderr.fnmatch_lines(["*ini option membudget_*: *"])


def test_the_plugin_can_be_turned_off(pytester, monkeypatch):
    monkeypatch.delenv("PYTEST_PLUGINS")
    monkeypatch.delenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD")
    pytester.makepyfile("import pytest\n@pytest.mark.memory_budget('nonsense')\ndef test_it(): pass")
    others = ["-p", "no:asyncio", "-p", "no:benchmark"]
    assert pytester.runpytest_subprocess(*others).ret == pytest.ExitCode.USAGE_ERROR
    result = pytester.runpytest_subprocess("-p", "no:membudget", *others)
    result.assert_outcomes(passed=1, warnings=1)
