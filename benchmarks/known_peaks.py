"""Programs whose peak is known: each gives the truth in bytes, read while everybody stands still."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests/measurement"))

from tree_programs import MIB, Fork, Holder, hold, settled, share, touch

INSTANT = "instant"


def written(pids):
    """What these processes have written to, each page counted once: proportional sizes without those of files."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith(("Pss_Anon:", "Pss_Shmem:")):
                total += int(line.split()[1]) * 1024
    return total


def truth_of(start, *pids):
    """Waits for four readings of the slowest sampler, then reads."""
    settled()
    return written([os.getpid(), *pids]) - start


def spike_of_an_instant():
    hold(256 * MIB).close()
    return 256 * MIB


def kept_and_given_back():
    first = hold(100 * MIB)
    second = hold(150 * MIB)
    first.close()
    second.close()
    return 250 * MIB


def mapped_and_not_touched():
    import mmap

    mmap.mmap(-1, 300 * MIB).close()
    return 0


def small_objects():
    start = written([os.getpid()])
    kept = [bytes(300) for _ in range(300_000)]
    truth = written([os.getpid()]) - start
    del kept
    return truth


def one_program():
    start = written([os.getpid()])
    holder = Holder(200 * MIB)
    truth = truth_of(start, holder.process.pid)
    holder.release()
    return truth


SPIKE_SIZES = itertools.count(256 * MIB, 16 * MIB)
SPIKE = """
import mmap, sys
print("there", flush=True)
sys.stdin.readline()
block = mmap.mmap(-1, int(sys.argv[1]), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for offset in range(0, len(block), mmap.PAGESIZE):
    block[offset] = 1
"""


def spike_in_a_program():
    """Each larger than all before: the kernel keeps the largest child's mark only."""
    start = written([os.getpid()])
    size = next(SPIKE_SIZES)
    words = [sys.executable, "-I", "-S", "-c", SPIKE, str(size)]
    child = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    truth = truth_of(start, child.pid) + size
    child.communicate(b"\n")
    return truth


def one_small_program():
    start = written([os.getpid()])
    holder = Holder(MIB)
    truth = truth_of(start, holder.process.pid)
    holder.release()
    return truth


def four_programs():
    start = written([os.getpid()])
    holders = [Holder(60 * MIB) for _ in range(4)]
    truth = truth_of(start, *(holder.process.pid for holder in holders))
    for holder in holders:
        holder.release()
    return truth


def one_after_the_other():
    return max(one_program() for _ in range(3))


def four_idle_forks():
    start = written([os.getpid()])
    forks = [Fork(lambda: None) for _ in range(4)]
    truth = truth_of(start, *(fork.pid for fork in forks))
    for fork in forks:
        fork.release()
    return truth


def ten_forks_one_after_the_other_beside_300():
    block = hold(300 * MIB)
    start = written([os.getpid()]) - 300 * MIB
    truth = 0
    for _ in range(10):
        fork = Fork(lambda: hold(20 * MIB))
        truth = max(truth, truth_of(start, fork.pid))
        fork.release()
    block.close()
    return truth


def four_forks_that_share_200():
    block = hold(200 * MIB)
    start = written([os.getpid()]) - 200 * MIB
    forks = [Fork(lambda: None) for _ in range(4)]
    truth = truth_of(start, *(fork.pid for fork in forks))
    for fork in forks:
        fork.release()
    block.close()
    return truth


def four_forks_that_write():
    block = hold(100 * MIB)
    start = written([os.getpid()]) - 100 * MIB
    forks = [Fork(lambda: touch(block, 50 * MIB)) for _ in range(4)]
    truth = truth_of(start, *(fork.pid for fork in forks))
    for fork in forks:
        fork.release()
    block.close()
    return truth


def four_forks_and_shared_memory():
    start = written([os.getpid()])
    block = share(150 * MIB)
    forks = [Fork(lambda: touch(block)) for _ in range(4)]
    truth = truth_of(start, *(fork.pid for fork in forks))
    for fork in forks:
        fork.release()
    block.close()
    return truth


ONE_PROCESS = (spike_of_an_instant, kept_and_given_back, mapped_and_not_touched, small_objects)
TREES = (one_program, one_small_program, four_programs, one_after_the_other)
CHILDRENS_SPIKES = (spike_in_a_program,)
SHARING = (
    four_idle_forks,
    ten_forks_one_after_the_other_beside_300,
    four_forks_that_share_200,
    four_forks_that_write,
    four_forks_and_shared_memory,
)
