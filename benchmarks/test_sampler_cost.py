"""What does watching cost? The helper's share of a core, an empty block, and a block that does nothing but allocate."""

import gc
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pytest_membudget import measuring
from pytest_membudget.measurement.tree.sampler import sampler

WATCHED_S = 6.0
CHURN = """
import sys
print("ready", flush=True)
sys.stdin.readline()
while True:
    block = bytearray(b"x") * 4_000_000
"""
SLEEP = "print('ready', flush=True); import sys; sys.stdin.readline(); import time; time.sleep(600)"


def cpu_s(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def share_of_a_core():
    helper = sampler()
    assert helper is not None
    before = cpu_s(helper.pid)
    time.sleep(WATCHED_S)
    return (cpu_s(helper.pid) - before) / WATCHED_S


def children(code, count):
    started = [
        subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(count)
    ]
    for child in started:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdout.readline()
        child.stdin.write(b"\n")
        child.stdin.flush()
    return started


@pytest.mark.parametrize(
    ("what", "code", "count", "most"),
    [("no child", "", 0, 0.015), ("eight asleep", SLEEP, 8, 0.08), ("eight that allocate", CHURN, 8, 0.08)],
)
def test_share_of_a_core(what, code, count, most, figure):
    with measuring():
        started = children(code, count)
        found = share_of_a_core()
        for child in started:
            child.kill()
            child.communicate()
    figure(f"helper, {what}", f"{found:.1%} of a core", f"at most {most:.1%}")
    assert found <= most


def test_an_empty_block(benchmark, figure):
    def block():
        with measuring():
            pass

    block()
    benchmark(block)
    if benchmark.stats is not None:
        median_s = benchmark.stats["median"]
        figure("begin and end of an empty block", f"{median_s * 1e6:.0f} µs", "at most 200 µs")
        assert median_s <= 0.0002


def churn():
    for _ in range(15):
        kept = [bytes(1000) for _ in range(20_000)]
        del kept


def timed(measured):
    """Processor seconds: what others do on the machine is not in them."""
    gc.collect()
    began_s = time.process_time()
    if measured:
        with measuring():
            churn()
    else:
        churn()
    return time.process_time() - began_s


def test_a_block_that_does_nothing_but_allocate(figure):
    timed(True)
    runs = [(timed(False), timed(True), timed(False)) for _ in range(25)]
    bare, watched, again = (min(times) for times in zip(*runs, strict=True))
    added, noise = watched / bare - 1, again / bare - 1
    figure(
        "an allocation-heavy block takes longer by",
        f"{added:.1%}",
        f"at most 1%; the same block unwatched: {noise:.1%}",
    )
    assert added <= 0.01 + abs(noise)
