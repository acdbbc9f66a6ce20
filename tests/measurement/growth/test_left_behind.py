"""Processes whose parent has ended belong to the function that left them behind."""

import contextlib
import os
import signal
import subprocess
import sys

import pytest

from pytest_membudget import check_growth
from pytest_membudget.measurement.process.children import LeftBehind

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


def test_a_daemon_is_known_by_the_test_in_its_environment(leave_one):
    before = leave_one()
    left_behind = LeftBehind()
    daemon = leave_one(start_new_session=True)
    other_test = {**os.environ, "PYTEST_CURRENT_TEST": "test_other.py::test_it (call)"}
    strangers = {
        leave_one(start_new_session=True, env=env) for env in (other_test, {"OF": "another program"})
    }
    assert daemon in left_behind.pids()
    assert not {before, *strangers} & set(left_behind.pids())


def test_outside_of_a_test_the_session_tells(leave_one, monkeypatch):
    monkeypatch.delenv("PYTEST_CURRENT_TEST")
    left_behind = LeftBehind()
    ours, stranger = leave_one(), leave_one(start_new_session=True)
    assert ours in left_behind.pids()
    assert stranger not in left_behind.pids()


DAEMON = """
import os, time
from pytest_membudget.measurement.process.children import LeftBehind
left_behind = LeftBehind()
reading, writing = os.pipe()
first = os.fork()
if first == 0:
    os.setsid()
    if os.fork() == 0:
        os.write(writing, b"%d" % os.getpid())
        os.read(0, 1)
    os._exit(0)
os.waitpid(first, 0)
print(int(os.read(reading, 20)) in left_behind.pids())
"""


def test_a_daemon_that_was_forked_is_known_by_where_its_environment_lies():
    with subprocess.Popen(
        [sys.executable, "-c", DAEMON], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout.readline() == "True\n"
        program.stdin.close()
