"""Processes whose parent has ended belong to the function that left them behind."""

import contextlib
import os
import signal
import subprocess
import sys

import pytest

from pytest_membudget import check_growth
from pytest_membudget.measurement.growth.left_behind import LeftBehind

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.processes,
    pytest.mark.skipif(sys.platform != "linux", reason="reads what Linux tells"),
]

SHELL = "sleep 60 >/dev/null 2>&1 & echo $!"


@pytest.fixture
def leave_one():
    """Starts a shell that leaves a process behind; gives its number."""
    left = []

    def start(**options):
        shell = subprocess.run(
            ["/bin/sh", "-c", SHELL], stdout=subprocess.PIPE, check=True, text=True, **options
        )
        left.append(int(shell.stdout))
        return left[-1]

    yield start
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_a_function_that_leaves_processes_behind_leaks_children(leave_one):
    g = check_growth(leave_one, culprits=False)
    assert g.verdict == "leak"
    (children,) = [each for each in g.resources if each.kind == "children"]
    assert children.per_call == pytest.approx(1, abs=0.1)
    assert "left behind" in children.examples[0]


def test_a_daemon_is_known_by_the_environment_it_inherited(leave_one):
    before = leave_one()
    left_behind = LeftBehind()
    daemon = leave_one(start_new_session=True)
    stranger = leave_one(start_new_session=True, env={"OF": "another program"})
    assert daemon in left_behind.pids()
    assert not {before, stranger} & set(left_behind.pids())
