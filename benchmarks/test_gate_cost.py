"""What does the gate cost a suite that did not change? 21 tests with data, compared with their baseline, beside the plain run.

Time on the wall, in alternation and on a quiet machine: the forks that reruns are taken in are no children of the session, so
that its processor time does not hold theirs. The suite is `noise_suite.py`'s, of which the racing threads are run again
nearly every time, and a test that does next to nothing.
"""

import importlib
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROUNDS = 5
OFF = ("-p", "no:membudget")
GATE = "--membudget-baseline=memory.json"
TEST = """
@pytest.fixture
def {name}(): return noise_suite.{name}()

def test_{name}({name}): {name}()
"""


@pytest.fixture
def suite(tmp_path, monkeypatch):
    # As installed: without compiled files each start would compile the plugin again.
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    monkeypatch.setenv("PYTHONPYCACHEPREFIX", str(tmp_path / "compiled"))
    here = Path(__file__).parent
    monkeypatch.syspath_prepend(here)
    head = (
        f"import sys\nsys.path.insert(0, {str(here)!r})\nimport noise_suite\nimport pandas\nimport pytest\n"
    )
    names = [maker.__name__ for maker in importlib.import_module("noise_suite").SUITE]
    body = "".join(TEST.format(name=name) for name in names)
    folder = tmp_path / "suite"
    folder.mkdir()
    (folder / "test_data.py").write_text(f"{head}{body}\ndef test_next_to_nothing(): pass\n")
    return folder


def run(folder, *options):
    """The time of one run, and what it printed."""
    started_s = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *options],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return time.perf_counter() - started_s, done.stdout


def test_an_unchanged_suite_against_its_baseline(figure, suite):
    run(suite, GATE, "--membudget-update-baseline")
    assert len(json.loads((suite / "memory.json").read_text())["tests"]) == 21
    shares, reruns = [], []
    for _ in range(ROUNDS):
        plain_s, _ = run(suite, *OFF)
        gated_s, printed = run(suite, GATE)
        shares.append(gated_s / plain_s)
        found = re.search(r"run again (\d+)", printed)
        reruns.append(int(found[1]) if found else 0)
    shown = ", ".join(f"{share:.2f} ({count})" for share, count in zip(shares, reruns, strict=True))
    figure("against its baseline / plain, median", f"{sorted(shares)[ROUNDS // 2]:.2f}", "at most 1.5")
    figure("each (reruns)", shown)
