import textwrap

import pytest

from pytest_membudget import load_calibration
from pytest_membudget.cli import main

pytestmark = pytest.mark.processes
READER = "def read(path):\n    return bytearray(5 * len(open(path, 'rb').read()))\n"
BROKEN = "def read(path):\n    if len(open(path, 'rb').read()) > 70_000: raise ValueError('wide')\n"
SIZES = ["--sizes", "50kB..200kB", "--repeats", "2"]


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_a_function_is_calibrated_shown_and_saved(project, capsys):
    (project / "reader_a.py").write_text(READER)
    assert main(["calibrate", "reader_a:read", *SIZES, "--save", "reader"]) == 0
    shown = capsys.readouterr().out
    assert "reader_a:read on csv, 6 runs in fresh processes" in shown
    assert "extrapolated" in shown
    assert "each size from the others: error" in shown
    folder = project / ".membudget" / "calibrations"
    assert [path.name for path in folder.iterdir()] == ["reader.json"]
    assert len(load_calibration(folder / "reader.json").points) == 6


def shown_program(text):
    """The lines to put into a program, as they are printed."""
    return textwrap.dedent("\n".join(line for line in text.splitlines() if line.startswith("    ")))


@pytest.mark.parametrize("keep", [["--save", "reader"], []])
def test_the_lines_for_a_program_run(project, capsys, keep):
    (project / "reader_d.py").write_text(READER)
    assert main(["calibrate", "reader_d:read", *SIZES, *keep]) == 0
    program = shown_program(capsys.readouterr().out)
    found = {"paths": [project / "reader_d.py"]}
    exec(program, found)
    assert [outcome.cause for outcome in found["batch"].outcomes] == ["ok"]
    assert ("reader.json" in program) == bool(keep)


def test_a_function_that_fails_on_some_sizes_ends_with_1(project, capsys):
    (project / "reader_b.py").write_text(BROKEN)
    assert main(["calibrate", "reader_b:read", *SIZES, "--repeats", "3"]) == 1
    shown = capsys.readouterr()
    assert "3 runs in fresh processes" in shown.out or "ValueError: wide" in shown.err
    assert "reader_b:read on csv fails at" in shown.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["reader"], "MODULE:FUNCTION"),
        (["json:loads", "--sizes", "big"], "is not a size"),
        (["json:loads", "--save", "../up"], "is not a name"),
        (["json:loads", "--in-flight"], "runs on your own files"),
        (["json:loads", "x", "--in-flight", "--values", "one"], "is not a list of whole numbers"),
        (["no_such_module:f", "x", "--in-flight"], "cannot be imported"),
        (["no_such_module:f"], "cannot be imported"),
    ],
)
def test_usage_errors_end_with_2(project, words, said, capsys):
    assert main(["calibrate", *words]) == 2
    assert said in capsys.readouterr().err


def test_the_in_flight_table_is_shown(project, capsys):
    (project / "reader_c.py").write_text(READER)
    (project / "input.bin").write_bytes(bytes(2_000_000))
    words = ["reader_c:read", "input.bin", "--in-flight", "--values", "1,2", "--workers", "2"]
    assert main(["calibrate", *words]) == 0
    shown = capsys.readouterr().out
    assert "recommended: max_in_flight=2" in shown
    assert "FallbackExecutor(max_workers=2, max_in_flight=2)" in shown_program(shown)
    assert "In flight (target 70.0% of the limit)" in shown
    assert {"peak", "slowdown", "tasks", "results"} <= set(shown.split())


TABLES = (
    "from pathlib import Path\n"
    "def cells(path): return int(Path(path).read_text().split()[0])\n"
    "def lines(path): return len(Path(path).read_text().splitlines())\n"
    "def load(path): return Path(path).read_text(), bytearray(2_000 * cells(path))\n"
)


def test_predictors_are_functions_that_are_named(project, capsys):
    (project / "tables.py").write_text(TABLES)
    files = []
    for number, cells in enumerate((500, 9000, 2500, 5000, 1000)):
        files.append(str(project / f"{number}.txt"))
        (project / f"{number}.txt").write_text(f"{cells}\n" * (3 + 5 * number % 4))
    words = ["--predictor", "cells=tables:cells", "--predictor", "lines=tables:lines", "--repeats", "1"]
    assert main(["calibrate", "tables:load", *files, *words, "--save", "tables"]) == 0
    shown = capsys.readouterr().out
    assert "follows cells, overhead" in shown
    assert "note: left out, since it does not help to predict: lines" in shown
    assert "each input from the others: error" in shown
    assert "a worker with one input of cells 9,000 takes at most" in shown
    assert 'load_calibration(".membudget/calibrations/tables.json", predictors={"cells": cells})' in shown
    found = {"paths": files}
    exec(shown_program(shown), found)
    assert [outcome.cause for outcome in found["batch"].outcomes] == ["ok"] * 5

    assert main(["workers", "tables", *files, "--predictor", "cells=tables:cells", "--limit", "1 GB"]) == 0
    assert "for cells 9,000" in capsys.readouterr().out
    assert main(["workers", "tables", *files]) == 2
    assert "'cells' has no function here" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--predictor", "pages"], "write NAME=MODULE:FUNCTION"),
        (["--predictor", "pages=json"], "MODULE:FUNCTION"),
        (["--predictor", "pages=json:absent"], "cannot be imported"),
        (["--predictor", "n=json:loads", "--predictor", "n=json:dumps"], "stands twice"),
        (["--predictor", "n=json:loads"], "predictors need inputs"),
    ],
)
def test_a_predictor_that_makes_no_sense_ends_with_2(project, words, said, capsys):
    assert main(["calibrate", "json:loads", *words]) == 2
    assert said in capsys.readouterr().err
