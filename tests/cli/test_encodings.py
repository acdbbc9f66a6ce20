"""Every command prints on any encoding, and loses nothing where its signs are missing there."""

import io
import os
import subprocess
import sys

import pytest

from pytest_membudget.cli import COMMANDS, main

READER = "import csv\ndef count(path):\n    with open(path) as file: return len(list(csv.reader(file)))\n"


def run(*words, encoding, cwd):
    return subprocess.run(
        [sys.executable, "-m", "pytest_membudget", *words],
        env=os.environ | {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"},
        cwd=cwd,
        capture_output=True,
        timeout=100,
        check=False,
    )


@pytest.mark.processes
@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_a_calibration_is_shown_and_saved(encoding, tmp_path):
    (tmp_path / "payments.py").write_text(READER)
    sizes = ("--sizes", "20kB,40kB,80kB", "--repeats", "1", "--save", "kept")
    done = run("calibrate", "payments:count", *sizes, encoding=encoding, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert b"gamma = " in done.stdout
    assert (tmp_path / ".membudget" / "calibrations" / "kept.json").is_file()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_is_shown(name, monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    with pytest.raises(SystemExit, match="0"):
        main([name, "--help"])
    stream.flush()
    assert stream.buffer.getvalue().startswith(b"usage: membudget")
