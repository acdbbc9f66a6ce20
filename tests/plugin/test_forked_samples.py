"""Reruns by forks of one interpreter: how many interpreters they take, when there is none, and what is left."""

import contextlib
import os
import subprocess
import sys
import time
from textwrap import dedent

import psutil
import pytest

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif("sys.platform != 'linux'", reason="reruns fork on Linux only"),
]

GATE = "--membudget-baseline=memory.json"
MODULE = """
from pathlib import Path

with Path("imports").open("a") as stream:
    stream.write("x")
{more}

def use(name, mib, calm_mib):
    first = not Path(name).exists()
    Path(name).touch()
    bytearray(b"x") * ((mib if first else calm_mib) << 20)

def test_one(): use("one", {first_mib}, {calm_mib})
def test_two(): use("two", {first_mib}, {calm_mib})
"""


def interpreters(pytester, first_mib, calm_mib, more=""):
    """How often the module was imported in a run with one rerun at most, and the outcomes of its two tests."""
    pytester.makepyfile(MODULE.format(first_mib=40, calm_mib=40, more=more))
    # Below a tolerance as wide as this a baseline takes no samples.
    pytester.runpytest(GATE, "--membudget-update-baseline", "--membudget-tolerance=100 MiB")
    for name in ("one", "two", "imports"):
        (pytester.path / name).unlink()
    pytester.makepyfile(MODULE.format(first_mib=first_mib, calm_mib=calm_mib, more=more))
    result = pytester.runpytest(GATE, "--membudget-samples=1")
    return len((pytester.path / "imports").read_text()), result.parseoutcomes()


def test_one_interpreter_acquits_all_tests_of_a_module(pytester):
    assert interpreters(pytester, 120, 40) == (2, {"passed": 2})


def test_only_fresh_interpreters_call_a_regression(pytester):
    assert interpreters(pytester, 120, 120) == (1 + 1 + 2, {"failed": 2})


def test_a_module_that_starts_a_thread_is_run_in_fresh_interpreters(pytester):
    thread = "import threading, time\nthreading.Thread(target=time.sleep, args=(600,), daemon=True).start()"
    assert interpreters(pytester, 120, 40, thread) == (1 + 1 + 2, {"passed": 2})


def test_an_idle_process_of_the_session_is_no_reason_against_forks(pytester):
    with subprocess.Popen(["sleep", "600"]) as idle:
        assert interpreters(pytester, 120, 40) == (2, {"passed": 2})
        idle.kill()


def test_what_a_fork_tells_of_a_test_that_starts_processes_is_not_used(pytester):
    starts = """
import builtins, subprocess

def bytearray(data):
    subprocess.run(["sleep", "0.2"])
    return builtins.bytearray(data)
"""
    assert interpreters(pytester, 120, 40, starts) == (1 + 1 + 2, {"passed": 2})


def test_nothing_runs_on_after_the_session(pytester):
    leaves = "import subprocess, sys\ndef teardown_module(): subprocess.Popen(['sleep', '600'], start_new_session=True)"
    interpreters(pytester, 120, 40, leaves)
    deadline_s = time.monotonic() + 60
    while any("pytest" in command for _, command in running_in(pytester.path)):
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
    # What the session's own teardown starts, in this process, is not ours to end.
    own = [process for process, command in running_in(pytester.path) if command.startswith("sleep")]
    for process in own:
        process.kill()
    assert len(own) == 2  # of the run that took the baseline, and of the one that compared with it


def running_in(folder):
    """The other processes in that folder, with their command lines."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):  # it has ended meanwhile
            if process.pid != os.getpid() and process.cwd() == str(folder):
                found.append((process, " ".join(process.cmdline())))
    return found


@pytest.mark.kernel
def test_a_fork_maps_the_pages_of_files_that_its_parent_had_mapped():
    wanted, missing = pages_in_fork("")
    assert wanted > 256
    assert missing == 0


@pytest.mark.kernel
def test_a_mapping_that_no_fork_has_is_left_out():
    _, missing = pages_in_fork("mapped[:] = bytes(len(mapped)); mapped.madvise(mmap.MADV_DONTFORK)")
    assert missing == 2


def pages_in_fork(first):
    """Resident pages of files of a small interpreter that has run `first`, and how many its fork lacks after `populate`."""
    program = f"""
        import ctypes, mmap, os, tempfile
        from pytest_membudget.plugin.fresh import fork_server

        def pages(ranges):
            return {{page for first, length in ranges for page in range(first, first + length, mmap.PAGESIZE)}}

        with tempfile.TemporaryFile() as file:
            file.truncate(2 * mmap.PAGESIZE)
            mapped = mmap.mmap(file.fileno(), 0)
        {first}
        ranges = fork_server.resident_file_ranges()
        if not os.fork():
            fork_server.populate(ctypes.CDLL(None, use_errno=True), ranges)
            missing = pages(ranges) - pages(fork_server.resident_file_ranges())
            print(len(pages(ranges)), len(missing), flush=True)
            os._exit(0)
        os.wait()
    """
    return map(int, subprocess.check_output([sys.executable, "-c", dedent(program)], timeout=60).split())
