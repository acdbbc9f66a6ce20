"""Programs that start at the same moment on one host: does one of them lose, and what does sharing cost?

In a memory control group made by hand (version 1, as root), because a test of running out of memory needs a wall. Each question
is asked REPEATS times, by default 3.
"""

import json
import os
import sys
import threading
import time

import pytest
from memory_group import Group, can_be_made
from tables import print_table

REPEATS = int(os.environ.get("REPEATS", "3"))
LIMIT_BYTES = 1 << 30
GOAL_SHARE = 0.9

pytestmark = pytest.mark.skipif(not can_be_made(), reason="needs control groups of version 1, as root")

PROGRAM = """
import json, sys, time
from pytest_membudget import FallbackExecutor, MemoryEstimator

def work(number):
    block = bytearray()
    for _ in range(11):
        block += bytearray(10_000_000)
        time.sleep(0.03)
    time.sleep(0.3)
    return number

if __name__ == "__main__":
    options = json.loads(sys.argv[1])
    began = time.monotonic()
    with FallbackExecutor(8, estimator=MemoryEstimator(0, "125 MB"), **options) as executor:
        batch = executor.run(work, list(range(16)))
    killed = sum(event.kind == "worker-killed" for event in batch.events)
    print(json.dumps([killed, time.monotonic() - began, sum(outcome.ok for outcome in batch.outcomes)]))
"""

SUITE = """
import time
import pytest

@pytest.mark.parametrize("number", range(6))
def test_job(number):
    block = bytearray(b"1") * 60_000_000
    time.sleep(0.1)
"""


@pytest.fixture
def program(tmp_path, monkeypatch):
    monkeypatch.setenv("MEMBUDGET_HOST_DIRECTORY", str(tmp_path / "host"))
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return path


def both(program, options):
    """Two programs at once: seconds until both are done, kills by the kernel, the group's peak, inputs that ended well."""
    group = Group(LIMIT_BYTES)
    try:
        began_s = time.monotonic()
        running = [group.start(sys.executable, program, json.dumps(options)) for _ in range(2)]
        done = [json.loads(each.communicate(timeout=300)[0]) for each in running]
        return time.monotonic() - began_s, group.killed(), group.peak_bytes(), sum(ok for _, _, ok in done)
    finally:
        group.remove()


def test_two_programs_in_a_container_of_one_gibibyte(program, figure):
    ways: dict[str, dict[str, str]] = {
        "nothing named": {},
        "half of the budget each": {"budget": "375 MB"},
        "one budget of the host": {"scope": "host"},
    }
    found: dict[str, list[tuple[float, int, int, int]]] = {name: [] for name in ways}
    for _ in range(REPEATS):
        for name, options in ways.items():
            found[name].append(both(program, options))
    rows = [("two programs, 16 tasks of 110 MB each", "seconds", "killed", "peak MiB", "ended well")]
    for name, runs in found.items():
        seconds, killed, peak, ok = zip(*runs, strict=True)
        median = sorted(seconds)[len(seconds) // 2]
        rows.append((name, f"{median:.1f}", str(sum(killed)), f"{max(peak) >> 20}", f"{min(ok)} of 32"))
    print_table(f"{REPEATS} runs each, interleaved; median, sum, largest, least", rows)
    shared, split = found["one budget of the host"], found["half of the budget each"]
    assert sum(run[1] for run in shared) == 0, "a program of the shared budget was killed"
    assert all(run[3] == 32 for run in shared)
    ratio = sum(run[0] for run in split) / sum(run[0] for run in shared)
    figure("throughput beside the fixed split", f"{ratio:.2f}", f"at least {GOAL_SHARE}")
    assert ratio >= GOAL_SHARE


def test_four_suites_and_four_commands_at_once(program, tmp_path, figure):
    (tmp_path / "test_jobs.py").write_text(SUITE)
    grow = "b = bytearray(b'1') * 150_000_000; import time; time.sleep(0.5)"
    command = [sys.executable, "-m", "pytest_membudget", "run", "--reserve", "200MB", "--"]
    suite = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-n",
        "auto",
        "-p",
        "no:cacheprovider",
        "--membudget-default=90MB",
    ]
    rows = [("run", "seconds", "killed", "peak MiB", "ended well")]
    for number in range(REPEATS):
        group = Group(LIMIT_BYTES)
        began_s = time.monotonic()
        running = [group.start(*suite, cwd=tmp_path) for _ in range(4)]
        running += [group.start(*command, sys.executable, "-c", grow) for _ in range(4)]
        readers = [threading.Thread(target=each.communicate) for each in running]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join(300)
        well = sum(each.returncode == 0 for each in running)
        seconds = time.monotonic() - began_s
        rows.append(
            (
                str(number + 1),
                f"{seconds:.1f}",
                str(group.killed()),
                f"{group.peak_bytes() >> 20}",
                f"{well} of 8",
            )
        )
        killed = group.killed()
        group.remove()
        assert well == 8, [each.returncode for each in running]
        assert killed == 0
    print_table("four suites under -n auto and four commands, together in 1 GiB", rows)
