import gc
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest
from tree_programs import HOLD, MIB

from pytest_membudget.errors import UsageError
from pytest_membudget.measurement.fresh.launcher import launch, run
from pytest_membudget.measurement.process.proc import open_files
from pytest_membudget.records.measurement import Ending
from waiting import is_alive, wait_until

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.processes,
    pytest.mark.skipif(sys.platform != "linux", reason="trees are walked in /proc"),
]
ESCAPE = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        open(sys.argv[1], "w").write(str(os.getpid()))
        time.sleep(600)
    os._exit(0)
os.wait()
while not os.path.exists(sys.argv[1]) or not open(sys.argv[1]).read():
    time.sleep(0.01)
time.sleep(float(sys.argv[2]))
"""
CHILD_HOLDS = """
import subprocess, sys
subprocess.Popen([sys.executable, "-I", "-S", "-c", *sys.argv[1:]], stdin=subprocess.PIPE).wait()
"""
CALLER = """
import sys
from pytest_membudget.measurement.fresh.launcher import run
run(sys.argv[1:], own_session=False)
"""


def python(code, *words):
    return [sys.executable, "-I", "-S", "-c", code, *map(str, words)]


def blocks(pid, number):
    _, _, mask = Path(f"/proc/{pid}/status").read_text().partition("SigBlk:")
    return int(mask.split()[0], 16) >> (number - 1) & 1


@pytest.mark.parametrize(
    ("words", "ending", "code"),
    [
        (["true"], "ended with exit code 0", 0),
        (["sh", "-c", "exit 7"], "ended with exit code 7", 7),
        (["sh", "-c", "kill -SEGV $$"], "was ended by SIGSEGV (signal 11)", 139),
        (["sh", "-c", "kill -KILL $$"], "was ended by SIGKILL (signal 9); the system may have run out of memory", 137),
        (["no-such-command-here"], "was not found", 127),
        (["/dev/null"], "may not be run", 126),
        (["sh", "-c", "kill -PIPE $$; echo Python ignores SIGPIPE"], "was ended by SIGPIPE (signal 13)", 141),
    ],
)  # fmt: skip
def test_how_a_command_ended_has_one_wording(words, ending, code):
    found = run(words, stdout=subprocess.DEVNULL)
    assert (str(found), found.exit_code) == (ending, code)


def test_what_left_its_session_ends_with_the_time_limit(tmp_path):
    ending = run(python(ESCAPE, tmp_path / "pid", 600), timeout_s=1.0)
    assert (ending.how, str(ending)) == ("timeout", "was ended at its time limit of 1 s")
    assert not is_alive(int((tmp_path / "pid").read_text()))


@pytest.mark.parametrize("keep_rest", [False, True])
def test_what_outlives_the_command_may_be_left(tmp_path, keep_rest):
    assert run(python(ESCAPE, tmp_path / "pid", 0), keep_rest=keep_rest).how == "exited"
    pid = int((tmp_path / "pid").read_text())
    assert is_alive(pid) == keep_rest
    if keep_rest:
        os.kill(pid, signal.SIGKILL)


def test_a_limit_holds_for_the_whole_tree():
    ending = run(python(CHILD_HOLDS, HOLD, 300 * MIB), limit_bytes=150 * MIB)
    assert (ending.how, ending.exit_code) == ("over-limit", 137)
    assert ending.reached_bytes > 150 * MIB
    assert "at its limit of 150 MiB" in str(ending)


def test_memory_that_a_tree_shares_counts_once_against_its_limit():
    shared = "import mmap, os, time\nblock = mmap.mmap(-1, 100 << 20)\nblock.write(bytes(100 << 20))\n"
    forks = "for _ in range(4):\n    if os.fork() == 0:\n        sum(block[at] for at in range(0, 100 << 20, 4096)); time.sleep(0.5); os._exit(0)\n"
    waits = "for _ in range(4): os.wait()\n"
    # The sum of resident sizes is 5 x 100 MiB.
    assert run(python(shared + forks + waits), limit_bytes=250 * MIB).how == "exited"


def test_the_tree_ends_with_its_caller_however_that_ends(tmp_path):
    words = [sys.executable, "-c", CALLER, *python(ESCAPE, tmp_path / "pid", 600)]
    caller = subprocess.Popen(words)
    wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    caller.kill()
    caller.wait()
    wait_until(lambda: not is_alive(int((tmp_path / "pid").read_text())))


def test_a_signal_to_the_caller_reaches_the_command_in_its_place():
    code = "import sys; from pytest_membudget.measurement.fresh.launcher import launch\n"
    code += "with launch(sys.argv[1:], own_session=False) as l: sys.exit(l.wait(passthrough=True).exit_code)"
    trap = "trap 'exit 42' USR1; echo ready; while :; do sleep 0.05; done"
    caller = subprocess.Popen([sys.executable, "-c", code, "sh", "-c", trap], stdout=subprocess.PIPE)
    assert caller.stdout.readline() == b"ready\n"
    wait_until(lambda: blocks(caller.pid, signal.SIGUSR1))  # before it waits, the signal would end it
    caller.send_signal(signal.SIGUSR1)
    assert caller.wait(20) == 42
    caller.stdout.close()


def test_a_signal_that_comes_before_the_commands_number_is_known_reaches_it():
    with launch(["sleep", "600"]) as launched:
        wait_until(lambda: launched.poll(0) is None and launched._command_pid)
        poll, number = launched.poll, launched._command_pid
        launched._command_pid = 0

        def scripted(wait_s):
            launched.poll = told
            signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)

        def told(wait_s=0):
            launched._command_pid = number
            return poll(wait_s)

        launched.poll = scripted
        assert launched.wait(passthrough=True).signal == signal.SIGUSR1


def test_a_cancelled_command_is_ended_with_its_tree(tmp_path):
    with launch(python(ESCAPE, tmp_path / "pid", 600)) as launched:
        wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
        assert launched.poll(0) is None
        assert str(launched.cancel()) == "was cancelled"
        assert not is_alive(int((tmp_path / "pid").read_text()))


def test_a_guard_that_was_killed_takes_its_command_with_it():
    with launch(["sleep", "600"]) as launched:
        wait_until(lambda: psutil.Process(launched.root).children())
        launched.poll(0)
        (command,) = psutil.Process(launched.root).children()
        os.kill(launched.root, signal.SIGKILL)
        assert launched.wait().how == "lost"
        wait_until(lambda: not is_alive(command.pid))


@pytest.mark.parametrize(
    ("command", "options", "message"),
    [
        ([], {}, "no command"),
        ([""], {}, "no command"),
        (["true\0"], {}, "NUL"),
        (["true"], {"limit_bytes": 0}, "limit is 0 bytes"),
        (["true"], {"timeout_s": float("nan")}, "time limit is nan s"),
        (["true"], {"timeout_s": float("inf")}, "time limit is inf s"),
    ],
)
def test_what_cannot_be_run_is_a_usage_error(command, options, message):
    with pytest.raises(UsageError, match=message):
        run(command, **options)


def test_no_descriptor_is_left_behind():
    gc.collect()  # closes what tests before have left
    before = open_files()
    run(["true"])
    assert open_files().items() <= before.items()


def test_a_signal_without_a_name_is_told_by_its_number():
    assert str(Ending(how="signalled", signal=41)) == "was ended by a real-time signal (signal 41)"


MANY_CHILDREN = """
import os, signal

pids = []
for _ in range(900):
    pid = os.fork()
    if not pid:
        signal.pause()
    pids.append(pid)

from pytest_membudget.measurement.fresh import guard
from pytest_membudget.measurement.process import children

print(guard.descendants(os.getpid()) == children.descendants() == pids)
for pid in pids:
    os.kill(pid, signal.SIGKILL)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /proc")
@pytest.mark.processes
def test_all_children_are_found_however_many_one_process_has():
    ran = subprocess.run(
        [sys.executable, "-c", MANY_CHILDREN], capture_output=True, text=True, check=True, timeout=60
    )
    assert ran.stdout == "True\n"
