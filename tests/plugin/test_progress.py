"""Fresh samples take long: a terminal says so while they are taken, and its lines stay as they are."""

import os
import subprocess
import sys

import pytest

TAKE = ("--membudget-baseline=memory.json", "--membudget-update-baseline", "--membudget-samples=2")


@pytest.fixture
def project(pytester):
    pytester.makepyfile(test_it="def test_job():\n    bytearray(b'x') * (40 << 20)\n")
    return pytester


def on_a_terminal(folder, *options):
    """What a session writes to a terminal of 80 columns."""
    pty = pytest.importorskip("pty", reason="this system has no pseudo-terminals")
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "pytest", *TAKE, *options]
    with subprocess.Popen(
        command, cwd=folder, stdout=theirs, stderr=theirs, env={**os.environ, "COLUMNS": "80", "TERM": "dumb"}
    ):
        os.close(theirs)
        written = b""
        try:
            while chunk := os.read(ours, 65536):
                written += chunk
        except OSError:
            pass  # how Linux tells that the other end was closed
        finally:
            os.close(ours)
    return written.decode()


def as_seen(line):
    """A line once its backspaces were followed."""
    seen, column = [], 0
    for character in line:
        if character == "\b":
            column -= 1
            continue
        seen[column : column + 1] = character
        column += 1
    return "".join(seen).rstrip()


@pytest.mark.processes
def test_a_terminal_shows_each_sample_and_keeps_its_line(project):
    written = on_a_terminal(project.path)
    (line,) = [line for line in written.splitlines() if line.startswith("test_it.py ")]
    assert " rerun 1 of 2\b" in line
    assert " rerun 2 of 2\b" in line
    seen = as_seen(line)
    assert seen.startswith("test_it.py .")
    assert seen.endswith("[100%]")
    assert "sample" not in seen


@pytest.mark.processes
@pytest.mark.parametrize("option", ["-q", "-s"])
def test_it_says_nothing_where_the_line_is_not_its_own(project, option):
    assert "rerun 1" not in on_a_terminal(project.path, option)


@pytest.mark.processes
def test_a_log_tells_it_once_beforehand(project):
    result = project.runpytest_subprocess(*TAKE)
    result.stdout.fnmatch_lines(
        [
            "membudget: runs each test above 1.00 MiB 2 times more in a fresh process for memory.json; *",
            "test_it.py .*",
        ]
    )
    assert "\b" not in result.stdout.str()
