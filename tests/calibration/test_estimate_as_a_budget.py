"""`memory_budget("estimate")` with a calibration of the same function, in a test that is the first call of its process."""

import pytest

from pytest_membudget import calibrate

pytestmark = [pytest.mark.processes, pytest.mark.usefixtures("only_this_plugin")]
READER = """
from pathlib import Path

TABLE = []

def load(path):
    import json, decimal, difflib  # the first call loads what later ones find, and fills a table
    if not TABLE:
        TABLE.append(bytearray(b"x") * 3_000_000)
    return json.loads(Path(path).read_bytes())
"""
TEST = """
import pytest
from first_reader import load

@pytest.fixture
def file(synthetic_file):
    return synthetic_file("400 kB", kind="json")

@pytest.mark.memory_budget("estimate")
@pytest.mark.parametrize("memory_estimator", ["reader"], indirect=True)
def test_load(file, memory_estimator):
    load(file.path){more}
"""


@pytest.fixture
def reader(pytester, monkeypatch):
    pytester.makepyfile(first_reader=READER)
    monkeypatch.syspath_prepend(str(pytester.path))
    import first_reader

    found = calibrate(first_reader.load, "json", ("200 kB", "400 kB", "800 kB"), repeats=1, progress=False)
    folder = pytester.path / ".membudget" / "calibrations"
    folder.mkdir(parents=True)
    found.save(folder / "reader.json")
    return found


def test_the_first_call_is_judged_as_one(pytester, reader):
    assert 3_000_000 < reader.first_call_bytes < 20_000_000  # the table alone
    assert reader.estimator().first_call_bytes == reader.first_call_bytes
    pytester.makepyfile(TEST.format(more=""))
    pytester.runpytest_subprocess("-p", "no:randomly").assert_outcomes(passed=1)
    pytester.makepyfile(TEST.format(more=", bytearray(b'x') * 40_000_000"))
    pytester.runpytest_subprocess("-p", "no:randomly").assert_outcomes(failed=1)


PREDICTED = """
import pytest
from pytest_membudget import Calibration, fit_points

seen = [({"rows": r, "columns": c}, 5_000_000 + 900 * r * c) for r, c in ((100, 10), (800, 10), (200, 60), (500, 40))]

@pytest.fixture
def memory_estimator():
    functions = {"rows": lambda item: item[0], "columns": lambda item: item[1]}
    return Calibration(fit_points(seen).file, functions).estimator()

@pytest.mark.memory_budget("estimate")
@pytest.mark.parametrize("table", [(400, 40), {"rows": 400, "columns": 40}, "none"])
def test_within(table):
    bytearray(b"x") * (900 * 400 * 40)

@pytest.fixture
def made():
    return 400, 40

@pytest.mark.memory_budget("estimate")
def test_what_a_fixture_made(made):
    bytearray(b"x") * (900 * 400 * 40)

@pytest.mark.memory_budget("estimate")
@pytest.mark.parametrize("table", [(400, 40)])
def test_over(table):
    bytearray(b"x") * (3_000 * 400 * 40)
"""


def test_an_item_that_is_no_file_is_judged_by_its_predictors(pytester):
    pytester.makepyfile(PREDICTED)
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(passed=3, failed=2)
    result.stdout.fnmatch_lines(
        [
            "*needs a file among the test's arguments, or a parameter that the predictors*",
            "FAILED *test_over*",
        ]
    )


def test_a_path_may_be_text(pytester):
    pytester.makepyfile(
        """
        import pytest

        @pytest.fixture
        def file(tmp_path_factory):
            path = tmp_path_factory.mktemp("files") / "file"
            path.write_bytes(bytes(100))
            return str(path)

        @pytest.mark.memory_budget("estimate")
        @pytest.mark.parametrize("name", ["no file"])
        def test_text(file, name): ...

        @pytest.mark.memory_budget("estimate")
        def test_none(): ...
        """
    )
    pytester.runpytest_subprocess().assert_outcomes(passed=1, failed=1)
