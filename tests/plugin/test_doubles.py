"""Whatever a test has put in place of the standard library, measuring it does not change how it ends.

The names are those that the package uses, read from its source: a new call cannot slip in.
"""

import ast
import importlib
import json
import sys
from pathlib import Path

import pytest

import pytest_membudget

PACKAGE = Path(pytest_membudget.__file__).parent
IN_THE_WINDOW = ("units.py", "errors.py", "originals.py", "records", "stats", "gate", "measurement", "plugin")
"""What may run between a test's setup and its teardown."""
ELSEWHERE = {
    "helper",
    "guard.py",
    "isolated_child.py",
    "memray_run.py",
    "child_session.py",
    "emergency_report.py",
}
"""What runs in processes of its own."""


def names_used():
    """Every `module.name` of the standard library in the source, where `name` can be called or is text."""
    found = set()
    for place in IN_THE_WINDOW:
        files = [PACKAGE / place] if place.endswith(".py") else (PACKAGE / place).rglob("*.py")
        for file in files:
            if ELSEWHERE.isdisjoint(file.relative_to(PACKAGE).parts):
                found |= set(_names_in(ast.parse(file.read_text())))
    return sorted(f"{module}.{name}" for module, name in found if _is_replaceable(module, name))


def _names_in(tree):
    modules = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import) or (
            isinstance(node, ast.ImportFrom) and node.module == "pytest_membudget.originals"
        ):
            modules |= {each.asname or each.name: each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module in sys.stdlib_module_names:
            yield from ((node.module, each.name) for each in node.names)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            yield modules[node.value.id], node.attr


def _is_replaceable(module, name):
    if module.partition(".")[0] not in sys.stdlib_module_names or module in {"typing", "__future__"}:
        return False
    try:
        value = getattr(importlib.import_module(module), name, None)
    except ImportError:  # another system's
        return False
    if isinstance(value, type):
        return module in {"logging", "pathlib", "subprocess", "tempfile", "threading", "warnings"}
    return callable(value) or isinstance(value, str)


PROJECT = """
import importlib, json, pathlib, sys, pytest

NAMES = json.loads(pathlib.Path(__file__).with_name("names.json").read_text())

def double_of(original):
    # pytest itself needs much of this before the test's teardown: the double is broken only for what we call.
    def refuse_us():
        frame = caller(2)
        while package_of(frame) in sys.stdlib_module_names:
            frame = frame.f_back
        if package_of(frame) == "pytest_membudget":
            raise RuntimeError(f"{frame.f_code} called the test's own double of {original}")

    def double(*arguments, **named):
        refuse_us()
        return original(*arguments, **named)

    def init(self, *arguments, **named):
        refuse_us()
        super(kind, self).__init__(*arguments, **named)

    if not isinstance(original, type):
        return double
    # A function in the place of a class would break `isinstance`.
    kind = type(original)(original.__name__, (original,), {"__init__": init})
    return kind

caller = sys._getframe

def package_of(frame):
    return frame.f_globals.get("__name__", "").partition(".")[0]

def replace(name, monkeypatch, functions_only=False):
    module, _, last = name.rpartition(".")
    module = importlib.import_module(module)
    original = getattr(module, last)
    if functions_only and isinstance(original, (str, type)):
        return
    monkeypatch.setattr(module, last, "win32" if isinstance(original, str) else double_of(original))

@pytest.fixture
def doubles(monkeypatch):
    for name in NAMES:
        replace(name, monkeypatch, functions_only=True)  # pytest would not bear the others all at once

@pytest.mark.parametrize("name", NAMES)
{marker}
def test_with_a_double(name, monkeypatch):
    replace(name, monkeypatch)
    bytearray(3_000_000)

{marker}
@pytest.mark.memory_growth
def test_with_all_of_them(doubles):
    pass
"""


NOTHING_SHARED = """
# What other tests put into shared memory meanwhile would make figures inexact, and their files a caveat.
from pathlib import Path
from pytest_membudget.measurement import probe
from pytest_membudget.measurement.growth.shared_files import SharedFiles
from pytest_membudget.measurement.tree.helper.shared_memory import SharedReading
probe._shared.read = SharedReading
SharedFiles.folder = str(Path(__file__).parent / "shared")
Path(SharedFiles.folder).mkdir(exist_ok=True)
"""


def run(pytester, *options):
    """The names of the tests that passed, and what was said of those that were measured."""
    report = pytester.path / "report.json"
    result = pytester.runpytest_subprocess("-rA", "-p", "no:cacheprovider", *options)
    passed = [line.split()[1] for line in result.outlines if line.startswith("PASSED ")]
    return passed, json.loads(report.read_text())["tests"] if report.exists() else []


@pytest.fixture(scope="module")
def passed_without_us():
    """The names of the tests that pass where nothing is measured, once they were asked for."""
    return []


@pytest.mark.parametrize(
    ("marker", "options"),
    [
        ("", ["--membudget"]),
        ("", ["--membudget-default=100MB", "--membudget-stop-at=95%"]),
        ('@pytest.mark.memory_budget("90 MB", hard=True)', []),
    ],
    ids=["measured", "judged and watched", "with a hard budget"],
)
def test_every_double_of_the_standard_library_leaves_outcome_and_figures_alone(
    pytester, passed_without_us, marker, options
):
    pytester.path.joinpath("names.json").write_text(json.dumps(names_used()))
    pytester.makeconftest(NOTHING_SHARED)
    pytester.makepyfile(PROJECT.replace("{marker}", marker))
    if not passed_without_us:
        passed_without_us.extend(run(pytester, "-p", "no:pytest_membudget.plugin")[0])
    assert len(passed_without_us) > 100
    with_us, tests = run(pytester, *options, "--membudget-report=report.json")
    assert with_us == passed_without_us
    assert {test["source"] for test in tests} == {"kernel"}
    # How many calls a growth needs, and so whether it says on how few it was judged, depends on what else the machine does.
    caveats = {(test["nodeid"], each) for test in tests for each in test.get("caveats", [])}
    assert {each for each in caveats if not each[1].startswith("judged on ")} == set()
    assert tests[-1]["growth"]["verdict"] == "clean"


def test_doubles_that_pytest_itself_would_not_bear_stand_in_the_way_of_no_report(pytester):
    pytester.makepyfile(
        """
        import io, json, os
        from unittest import mock
        import pytest

        @pytest.mark.memory_budget("1 MB")
        def test_over(monkeypatch):
            monkeypatch.setattr(os, "name", "nt")
            bytearray(5_000_000)

        @pytest.mark.memory_budget("90 MB", isolate=True)
        @pytest.mark.parametrize("owner, name, double", [
            (os, "name", "nt"), (io, "open", mock.mock_open()), (json, "dumps", mock.Mock(return_value="?"))
        ])
        def test_isolated(owner, name, double, monkeypatch):
            monkeypatch.setattr(owner, name, double)
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(["FAILED *::test_over - peak * > budget *"])


BUILT_IN = """
import builtins
import pytest

NAMES = "abs all any bytes enumerate filter float frozenset map max min range round set sorted sum vars zip".split()

@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("how", ["replaced", "deleted"])
def test_without(monkeypatch, name, how):
    def double(*_, **__):
        raise RuntimeError(name)

    block = bytearray(5_000_000)
    if how == "replaced":
        monkeypatch.setattr(builtins, name, double)
    else:
        monkeypatch.delattr(builtins, name)
"""


def test_a_test_may_replace_built_in_functions(pytester):
    """Our code looks them up like any other, also while the test's report is made."""
    pytester.makepyfile(BUILT_IN)
    pytester.makeconftest(NOTHING_SHARED)
    passed, tests = run(pytester, "--membudget-report=report.json", "--membudget-default=60MB")
    assert len(passed) == 36
    assert {test["verdict"] for test in tests} == {"within"}
    assert min(test["peak_bytes"] for test in tests) > 4_000_000
