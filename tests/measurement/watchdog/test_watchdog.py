"""The watchdog on real runaways: each grows until it is stopped, never by the clock."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from tree_programs import HOLD, MIB, Holder, hold

from pytest_membudget import originals
from pytest_membudget.errors import WatchdogStop
from pytest_membudget.measurement.process import high_water
from pytest_membudget.measurement.thread_stacks import forget_frames
from pytest_membudget.measurement.tree import sampler
from pytest_membudget.measurement.watchdog import EXIT_STUCK, Listener, Watchdog

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.processes,
    pytest.mark.skipif(sys.platform != "linux", reason="the watchdog acts through the Linux helper"),
]
LIMIT = 40 * MIB
MOST = 64  # blocks of 8 MiB: a runaway that nobody stops ends here


def run_away():
    held = []
    for _ in range(MOST):
        held.append(hold(8 * MIB))
        time.sleep(0.05)


def guarded(block, dog=None, limit=LIMIT):
    # Settled: what the test before left for the collector must not go while this one takes as much.
    probe = (dog or Watchdog()).guard("a test", limit_bytes=limit, settle=True)
    probe.begin()
    stop = None
    try:
        block()
    except WatchdogStop as raised:
        stop = raised
    finally:
        probe.finish()
    return probe, stop


def test_a_block_over_its_limit_is_stopped_and_its_memory_goes():
    before = high_water.resident_bytes()
    probe, stop = guarded(run_away)
    assert stop is not None
    assert probe.kill_record.kind == "stopped"
    assert LIMIT < probe.kill_record.peak_bytes < MOST * 8 * MIB
    assert "in run_away" in probe.kill_record.stack
    assert probe.kill_record.stack.startswith("It was doing this")
    assert "in guarded" in probe.kill_record.stack.splitlines()[1]  # where the block stands
    assert not {"_pytest", "pluggy"} & set(re.split(r"\W", probe.kill_record.stack))
    assert "more than the 40.0 MiB it may take" in str(probe.kill_record)
    forget_frames(stop.__traceback__)
    assert high_water.resident_bytes() < before + 20 * MIB
    assert probe.measurement.peak_bytes > LIMIT


def test_except_exception_does_not_swallow_the_stop():
    def stubborn():
        try:
            run_away()
        except Exception:
            pytest.fail("swallowed")

    assert guarded(stubborn)[1] is not None


def hoard_and_sleep():
    block = hold(100 * MIB)
    time.sleep(600)
    block.close()


def test_a_sleeping_block_is_woken():
    assert guarded(hoard_and_sleep)[1] is not None


def test_a_signal_that_is_lost_just_before_a_sleep_is_sent_again(monkeypatch):
    send, sent = signal.pthread_kill, []

    def lose_the_first(thread, number):
        sent.append(number)
        if len(sent) > 1:
            send(thread, number)

    monkeypatch.setattr(originals.signal, "pthread_kill", lose_the_first)
    assert guarded(hoard_and_sleep)[1] is not None


def test_the_whole_tree_may_not_reach_the_sessions_limit():
    dog = Watchdog(stop_total_bytes=high_water.resident_bytes() + LIMIT)
    probe, stop = guarded(run_away, dog, limit=None)
    assert stop is not None
    assert probe.kill_record.limit_bytes == dog.stop_total_bytes


def test_within_its_limit_a_block_is_left_alone():
    probe, stop = guarded(lambda: hold(8 * MIB).close())
    assert (stop, probe.kill_record) == (None, None)


def let_a_child_run_away():
    killed = []

    def child():
        words = [sys.executable, "-I", "-S", "-c", HOLD, str(80 * MIB)]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            process.wait()
        killed.append(process)

    probe, stop = guarded(child)
    assert stop is None
    return probe, killed


def hears_nothing(listener):
    """Stands for a thread that had no turn before the block ended."""


def test_a_child_killed_just_before_the_end_is_named_all_the_same(monkeypatch):
    monkeypatch.setattr(Listener, "run", hears_nothing)
    probe, killed = let_a_child_run_away()
    assert (probe.kill_record.kind, probe.kill_record.pid) == ("child-killed", killed[0].pid)


def test_a_runaway_child_is_killed_and_named():
    probe, killed = let_a_child_run_away()
    assert killed[0].returncode == -signal.SIGKILL
    assert (probe.kill_record.kind, probe.kill_record.pid) == ("child-killed", killed[0].pid)
    assert "python" in probe.kill_record.name


def test_a_child_that_was_there_is_not_the_runaway():
    holder = Holder(80 * MIB)
    probe, stop = guarded(run_away)
    assert stop is not None
    assert probe.kill_record.kind == "stopped"
    assert holder.process.poll() is None
    holder.release()


SCRIPT = """
import sys, time
from pathlib import Path
from tree_programs import MIB, hold
from pytest_membudget.measurement.watchdog import Watchdog

words = Path(sys.argv[1])
last_words = [sys.executable, "-c", "import sys; open(sys.argv[1], 'w').write(sys.stdin.read())", str(words)]
dog = Watchdog(
    grace_s=0.5,
    last_words=last_words,
    on_stuck=lambda kill_record: words.write_text('{"label": "%s"}' % kill_record.label),
)
probe = dog.guard("tests/test_a.py::test_b", limit_bytes=20 * MIB)
probe.begin()
"""
DEAF = """
while True:
    try:
        block = hold(60 * MIB)
        time.sleep(600)
    except BaseException:
        pass
"""


# Takes 61 MiB and never comes back from C, nor gives the interpreter's lock to anybody.
LOCKED = """
import collections, itertools
collections.deque(itertools.repeat(0), maxlen=8_000_000)
"""


def run_stuck(tmp_path, stuck):
    """A script whose block takes 60 MiB and then does not listen; its record is what somebody saved."""
    words = tmp_path / "words.json"
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", SCRIPT + stuck, str(words)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert words.exists(), done.stderr
    return done, json.loads(words.read_text())


def test_a_block_that_does_not_stop_ends_the_process_with_its_record_saved(tmp_path):
    done, words = run_stuck(tmp_path, DEAF)
    assert done.returncode == EXIT_STUCK
    assert words["label"] == "tests/test_a.py::test_b"
    assert "did not stop within" in done.stderr


def test_a_block_inside_c_code_that_holds_the_lock_is_ended_from_outside(tmp_path):
    done, words = run_stuck(tmp_path, LOCKED)
    assert done.returncode == -signal.SIGABRT
    assert words["peak_bytes"] > 20 * MIB
    assert "Fatal Python error: Aborted" in done.stderr


def test_without_a_helper_the_watchdog_looks_for_itself(monkeypatch):
    monkeypatch.setattr(sampler, "sampler", lambda: None)
    probe, stop = guarded(run_away)
    assert stop is not None
    assert probe.kill_record.source == "inside"
