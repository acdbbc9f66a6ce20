"""Users' programs keep their types: `mypy --strict` and pyright read an example of one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def test_mypy_reads_it_strictly(tmp_path):
    # From another folder, so that the settings of this project do not count and the installed package is read.
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--cache-dir",
        ROOT / ".mypy_cache",
        HERE / "consumer.py",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.processes
def test_pyright_reads_it(tmp_path):
    pytest.importorskip("pyright", reason="pyright is not installed (extra dev)")
    settings = {"include": [str(HERE / "consumer.py")], "typeCheckingMode": "strict"}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "--project", tmp_path]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
