"""Commands inside the host's budget: their memory is reserved, charged, limited, measured, and given back."""

import json
import os
import signal
import subprocess
import sys

import pytest

from pytest_membudget import MemorySemaphore
from pytest_membudget.cli import main
from pytest_membudget.cli import run as run_command
from pytest_membudget.measurement.system.control_group import make_control_group
from waiting import wait_until

MB = 1_000_000

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(sys.platform != "linux", reason="process trees are measured on Linux"),
]

PYTHON = [sys.executable, "-I", "-S", "-c"]
GROW = "block = bytearray()\nwhile True: block += bytes(b'1') * 2_000_000"
GROW_IN_CHILD = f"import subprocess, sys; subprocess.run([sys.executable, '-I', '-S', '-c', {GROW!r}])"


@pytest.fixture(autouse=True)
def host_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("MEMBUDGET_HOST_DIRECTORY", str(tmp_path / "host"))


@pytest.fixture
def other():
    return MemorySemaphore("1 GB", scope="host", label="another program")


def run(*words):
    return main(["run", *map(str, words)])


def start(*words):
    return subprocess.Popen(
        [sys.executable, "-m", "pytest_membudget", "run", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    ("command", "code"), [(["true"], 0), (["sh", "-c", "exit 7"], 7), (["sh", "-c", "kill -TERM $$"], 143)]
)
def test_the_exit_code_is_the_commands(command, code):
    assert run("--reserve", "10MB", "--", *command) == code


def test_the_peak_is_told_and_written_beside_what_was_reserved(tmp_path, capfd):
    command = [*PYTHON, "block = bytes(b'1') * 60_000_000; print('output')"]
    assert run("--reserve", "40MB", "--json", tmp_path / "run.json", "--", *command) == 0
    out, told = capfd.readouterr()
    assert out == "output\n"
    assert "38.1 MiB reserved" in told
    assert "more than was reserved" in told
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["reserved_bytes"] == 40 * MB
    assert record["measurement"]["peak_bytes"] >= 60 * MB
    assert record["measurement"]["exit_code"] == 0


@pytest.mark.parametrize("code", [GROW, GROW_IN_CHILD])
def test_what_exceeds_its_limit_is_ended_with_all_that_it_started(code, capfd):
    assert run("--reserve", "50MB", "--limit", "60MB", "--", *PYTHON, code) == 137
    assert "was ended at its limit of 57.2 MiB" in capfd.readouterr().err


@pytest.mark.kernel
def test_where_a_control_group_can_be_made_the_kernel_holds_the_limit_exactly(tmp_path):
    group = make_control_group(10_000_000)
    if group is None:
        pytest.skip("this process may make no control group")
    group.close()
    limited = ["--reserve", "50MB", "--limit", "60MB", "--json", tmp_path / "run.json"]
    assert run(*limited, "--", *PYTHON, GROW) == 137
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["measurement"]["ending"]["how"] == "over-limit"
    assert record["measurement"]["command"][0] == sys.executable
    # Pages of the interpreter's files are in the page cache already, so they are charged to no group of ours.
    of_files = [*PYTHON, "print(open('/proc/self/statm').read().split()[2])"]
    shared_bytes = int(subprocess.check_output(of_files)) * os.sysconf("SC_PAGE_SIZE")
    assert 50 * MB < record["measurement"]["peak_bytes"] < 60 * MB + shared_bytes


def test_without_a_control_group_its_guard_ends_it(monkeypatch, capfd):
    monkeypatch.setattr(run_command, "make_control_group", lambda _: None)
    assert run("--reserve", "50MB", "--limit", "60MB", "--", *PYTHON, GROW_IN_CHILD) == 137
    assert "was ended at its limit of 57.2 MiB" in capfd.readouterr().err


def test_its_time_limit_ends_it(capfd):
    assert run("--reserve", "1MB", "--timeout", "0.2", "--", "sleep", "600") == 137
    assert "sleep was ended at its time limit of 200 ms" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["--reserve", "2GB", "--budget", "1GB", "--", "true"],
            "--reserve is 1.86 GiB, more than the budget of 954 MiB",
        ),
        (
            ["--reserve", "2MB", "--limit", "1MB", "--", "true"],
            "--limit is 977 KiB, less than the 1.91 MiB of --reserve",
        ),
        (["--reserve", "much", "--", "true"], "--reserve: "),
        (["--reserve", "1MB"], "there is no command"),
        (["--reserve", "1MB", "--timeout", "nan", "--", "true"], "time limit is nan"),
        (["--reserve", "1MB", "--name", "", "--", "true"], "name is ''"),
        (["--reserve", "1MB", "--json", "/", "--", "true"], "is a directory"),
    ],
)
def test_what_cannot_be_run_is_one_sentence_and_code_2(words, said, capfd):
    assert run(*words) == 2
    assert said in capfd.readouterr().err


def test_a_command_that_is_not_found_is_named(capfd):
    assert run("--reserve", "1MB", "--", "no-such-program") == 127
    assert capfd.readouterr().err == "membudget run: 'no-such-program' was not found\n"


def test_it_waits_for_its_memory_and_says_who_holds_it(other, tmp_path):
    lease = other.reserve("900 MB")
    waiting = start("--reserve", "200MB", "--", "touch", tmp_path / "ran")
    wait_until(lambda: other.statistics().waiting == 1)
    assert not (tmp_path / "ran").exists()
    lease.release()
    _, told = waiting.communicate(timeout=60)
    assert waiting.returncode == 0
    assert "waiting for 191 MiB: 858 MiB of 954 MiB are reserved, 858 MiB by another program" in told
    assert (tmp_path / "ran").exists()
    assert other.statistics().reserved_bytes == 0


def test_memory_that_does_not_come_free_in_time_is_code_124(other, capfd):
    with other.reserve("900 MB"):
        assert run("--reserve", "200MB", "--timeout", "0.1", "--", "true") == 124
    assert "191 MiB did not come free within 100 ms" in capfd.readouterr().err


def test_what_it_holds_above_its_reservation_is_charged_until_it_ends(other):
    code = "block = bytes(b'1') * 300_000_000; print('ready', flush=True); input()"
    running = subprocess.Popen(
        [sys.executable, "-m", "pytest_membudget", "run", "--reserve", "100MB", "--", *PYTHON, code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert running.stdout.readline() == b"ready\n"
    wait_until(lambda: other.statistics().reserved_bytes > 300 * MB)
    assert not other.can_allocate("800 MB")
    running.communicate(b"\n", timeout=60)
    assert other.can_allocate("1 GB")


def test_a_program_inside_it_draws_on_its_reservation_instead_of_waiting_for_it(other):
    inner = ["run", "--reserve", "600MB", "--budget", "1GB", "--", "true"]
    outer = start("--reserve", "700MB", "--", sys.executable, "-m", "pytest_membudget", *inner)
    _, told = outer.communicate(timeout=60)
    assert outer.returncode == 0, told
    assert "waiting" not in told


def test_a_signal_reaches_the_command_and_its_own_answer_comes_back():
    code = "import signal, sys; signal.signal(signal.SIGTERM, lambda *a: sys.exit(9)); print('ready', flush=True); signal.pause()"
    running = start("--reserve", "50MB", "--", *PYTHON, code)
    assert running.stdout.readline() == "ready\n"
    running.send_signal(signal.SIGTERM)
    running.communicate(timeout=60)
    assert running.returncode == 9


def test_killed_it_takes_the_command_along_and_its_memory_is_free(other):
    running = start(
        "--reserve",
        "900MB",
        "--",
        *PYTHON,
        "import os, time; print(os.getpid(), flush=True); time.sleep(600)",
    )
    pid = int(running.stdout.readline())
    assert not other.can_allocate("200 MB")
    running.kill()
    running.communicate()
    assert other.can_allocate("1 GB")
    wait_until(lambda: not _lives(pid))


def _lives(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
