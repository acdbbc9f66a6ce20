"""Real programs that share one budget, some of them killed: only the kernel keeps time here."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from pytest_membudget import MemorySemaphore

pytestmark = [
    pytest.mark.processes,
    pytest.mark.usefixtures("host_directory"),
    pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL and fork are POSIX's"),
]

BUDGET = 1000

# Takes turns until its input ends; logs each lease after it was granted and before it is given back.
PROGRAM = """
import json, os, random, sys, time
from pytest_membudget import MemorySemaphore

def log(sign, size):
    line = json.dumps([time.monotonic_ns(), os.getpid(), sign * size]) + "\\n"
    os.write(descriptor, line.encode())

descriptor = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)
chance = random.Random(int(sys.argv[2]))
semaphore = MemorySemaphore(1000, scope="host", name="shared")
print("ready", flush=True)
for turn in range(int(sys.argv[3])):
    size = chance.choice([100, 250, 400, 700, 1000])
    with semaphore.reserve(size):
        log(+1, size)
        time.sleep(chance.uniform(0, 0.003))
        log(-1, size)
"""

HOLDER = """
import os, sys, time
from pytest_membudget import MemorySemaphore
lease = MemorySemaphore(1000, scope="host", name="shared").reserve(1000)
child = os.fork() if "fork" in sys.argv else 0
if child or "fork" not in sys.argv:
    print(child, flush=True)
time.sleep(600)
"""

LOCKED = """
import os, sys, time
from pytest_membudget.runtime.admission.host_state_file import HostStateFile
with HostStateFile("shared").transaction():
    child = os.fork()
    if child:
        print(child, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def start():
    started = []

    def run(code, *arguments):
        process = subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def most_held_together(events, killed_ns):
    """The most bytes out at one instant: a program that was killed held its bytes at least until it was."""
    held, steps = {}, []
    for at_ns, pid, change in sorted(events):
        steps.append((at_ns, change))
        held[pid] = held.get(pid, 0) + change
    steps += [(killed_ns[pid], -size) for pid, size in held.items() if size]
    most = now = 0
    for _, change in sorted(steps):
        now += change
        most = max(most, now)
    assert now == 0
    return most


def test_eight_programs_some_killed_never_exceed_the_budget_together(start, tmp_path):
    log = tmp_path / "log"
    log.touch()
    chance = random.Random(20261121)
    programs = [start(PROGRAM, log, seed, 25) for seed in range(8)]
    for program in programs:
        assert program.stdout.readline() == "ready\n"
    killed_ns = {}
    for program in chance.sample(programs, 3):
        time.sleep(chance.uniform(0, 0.1))
        if program.poll() is None:
            killed_ns[program.pid] = time.monotonic_ns()
            program.kill()
    codes = [program.wait(timeout=100) for program in programs]
    assert set(codes) <= {0, -signal.SIGKILL}
    assert codes.count(0) >= 5
    events = [json.loads(line) for line in log.read_text().splitlines()]
    assert 0 < most_held_together(events, killed_ns) <= BUDGET
    observer = MemorySemaphore(BUDGET, scope="host", name="shared")
    assert (observer.statistics().leases, observer.statistics().waiting) == (0, 0)


@pytest.mark.parametrize("inherited", [False, True], ids=["alone", "with a child that lives on"])
def test_a_killed_program_gives_its_bytes_back(start, inherited):
    holder = start(HOLDER, "fork" if inherited else "")
    child = int(holder.stdout.readline())
    try:
        semaphore = MemorySemaphore(BUDGET, scope="host", name="shared")
        assert semaphore.acquire_nowait(1) is None
        holder.kill()  # and not waited for: what is left of it holds no memory
        assert semaphore.reserve(BUDGET, timeout_s=60).bytes == BUDGET
    finally:
        if child:
            os.kill(child, signal.SIGKILL)


def test_a_program_killed_inside_a_transaction_leaves_no_lock_to_its_child(start):
    locked = start(LOCKED)
    child = int(locked.stdout.readline())
    try:
        locked.kill()
        locked.wait()
        assert MemorySemaphore(BUDGET, scope="host", name="shared").acquire_nowait(1) is not None
    finally:
        os.kill(child, signal.SIGKILL)
