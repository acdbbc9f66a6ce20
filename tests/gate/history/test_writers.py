import os
import signal
import subprocess
import sys
import time

import pytest

from pytest_membudget.gate import history as store
from pytest_membudget.gate.history import open_history
from pytest_membudget.records.report import Report

pytestmark = pytest.mark.processes

WRITER = """
import sys
from pytest_membudget.gate.history import open_history
from pytest_membudget.records.report import Report, TestRecord
path, who, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
for number in range(count):
    tests = tuple(TestRecord(nodeid=f"t::{n}", outcome="passed", peak_bytes=n) for n in range(200))
    with open_history(path, create=True) as history:
        history.add(Report(tests=tests), f"{who}-{number}")
    print(number, flush=True)
"""


def writer(path, who, count):
    command = [sys.executable, "-c", WRITER, str(path), who, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_two_writers_at_once_lose_nothing(tmp_path):
    path = tmp_path / "h"
    writers = [writer(path, who, 10) for who in ("one", "two")]
    for each in writers:
        each.communicate()
        assert each.returncode == 0
    with open_history(path) as history:
        revisions = [run.revision for run in history.runs()]
    for who in ("one", "two"):
        assert [each for each in revisions if each.startswith(who)] == [f"{who}-{n}" for n in range(10)]


def test_a_killed_writer_leaves_every_run_that_it_had_told_and_no_half_one(tmp_path):
    path = tmp_path / "h"
    killed = writer(path, "x", 10_000)
    told = [killed.stdout.readline() for _ in range(3)]
    time.sleep(0.02)
    os.kill(killed.pid, signal.SIGKILL)
    rest, _ = killed.communicate()
    with open_history(path) as history:
        runs = history.runs()
    assert len(runs) >= len(told) + rest.count("\n")
    assert {run.tests for run in runs} == {200}


def test_a_writer_that_waits_too_long_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "WAIT_S", 0.05)
    path = tmp_path / "h"
    with (
        open_history(path, create=True) as first,
        store.writing(first._connection),
        pytest.raises(OSError, match="another program has been writing"),
        open_history(path, create=True) as second,
    ):
        second.add(Report(), "r1")
