"""`make demo` from its first line to its report, and what Ctrl-C leaves."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.processes, pytest.mark.timeout(300)]


def start_demo():
    outside = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return subprocess.Popen(
        [sys.executable, ROOT / "examples" / "demo.py"],
        cwd=ROOT,
        env=outside,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def left_in_session(session):
    return [process.pid for process in psutil.process_iter() if in_session(process.pid, session)]


def in_session(pid, session):
    try:
        return os.getsid(pid) == session
    except ProcessLookupError:
        return False


def test_it_ends_with_the_scale_table_and_a_report():
    with start_demo() as demo:
        printed = demo.stdout.read()
    assert demo.returncode == 0, printed
    for scale in ("MICRO", "SMALL", "MEDIUM"):
        assert scale.lower() in printed.lower()
    report = printed.strip().splitlines()[-1].removeprefix("report: ")
    assert (ROOT / report).stat().st_size > 1000
    assert "\r" not in printed  # progress bars are for terminals
    assert left_in_session(demo.pid) == []


@pytest.mark.parametrize("moment", ["1. Synthetic", "2. What", "3. Larger", "4. The same"])
def test_ctrl_c_leaves_no_process(moment):
    with start_demo() as demo:
        for line in demo.stdout:
            if line.startswith(moment):
                break
        os.killpg(demo.pid, signal.SIGINT)
        rest = demo.stdout.read()
    assert demo.returncode == 130, rest
    assert "Traceback" not in rest
    assert left_in_session(demo.pid) == []
