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
    assert "of limit" in shown
