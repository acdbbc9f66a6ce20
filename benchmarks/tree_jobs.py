"""Tasks that let others do the work. Each takes a file of n bytes, and 100 n bytes of memory in what it starts."""

import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

from pytest_membudget import measure

BYTES_PER_BYTE = 100
HOLD_S = 0.15
HOLD = "import sys, time; block = bytearray(b'x') * int(sys.argv[1]); time.sleep(float(sys.argv[2]))"


def holding(size_bytes, hold_s=HOLD_S):
    return [sys.executable, "-I", "-S", "-c", HOLD, str(size_bytes), str(hold_s)]


def hold(size_bytes):
    block = bytearray(b"x") * size_bytes
    time.sleep(HOLD_S)
    return len(block)


def program(size_bytes):
    subprocess.run(holding(size_bytes), check=True)


def sort(size_bytes):
    """GNU sort reads random lines into a buffer of that size, and gzip packs what it gives."""
    lines = "".join(f"{number * 7919 % 1_000_003:015d}\n" for number in range(size_bytes // 80))
    pipeline = f"sort -S {size_bytes // 1000}K --parallel=1 | gzip -1"
    subprocess.run(pipeline, shell=True, check=True, input=lines.encode(), stdout=subprocess.DEVNULL)


def pool_of_two(size_bytes):
    with multiprocessing.get_context("fork").Pool(2) as pool:
        pool.map(hold, [size_bytes // 2] * 2)


def double_fork(size_bytes):
    """The one that holds has left the session, and its parent has ended; the task waits for its word."""
    reading, writing = os.pipe()
    first = os.fork()
    if first == 0:
        os.setsid()
        if os.fork() == 0:
            hold(size_bytes)
            os.write(writing, b".")
        os._exit(0)
    os.waitpid(first, 0)
    os.read(reading, 1)
    os.close(reading)
    os.close(writing)


def outlived(size_bytes):
    """The program goes on after its task has returned."""
    subprocess.Popen(holding(size_bytes, 3 * HOLD_S))
    time.sleep(2 * HOLD_S)


KINDS = (program, sort, pool_of_two, double_fork, outlived)
BY_NAME = {kind.__name__: kind for kind in KINDS}


def kind_of(path):
    """Kinds take turns by the number in a file's name, so that one function and one estimate serve all."""
    return KINDS[int(Path(path).stem) % len(KINDS)]


def measured(path):
    """What `measure` says of the same call, in the same kind of process."""
    found = measure(job, path)
    return found.peak_bytes, found.peak_upper_bytes


def job(path):
    kind_of(path)(Path(path).stat().st_size * BYTES_PER_BYTE)
    return kind_of(path).__name__
