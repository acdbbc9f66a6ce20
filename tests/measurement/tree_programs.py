"""Programs that hold a known amount of memory, say so, and wait for the word to go on."""

import contextlib
import mmap
import os
import subprocess
import sys
import time

from pytest_membudget.measurement.tree import sampler

MIB = 1024 * 1024
PAGE = mmap.PAGESIZE

HOLD = """
import mmap, sys
block = mmap.mmap(-1, int(sys.argv[1]), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for offset in range(0, len(block), mmap.PAGESIZE):
    block[offset] = 1
print("held", flush=True)
sys.stdin.readline()
"""


def hold(size):
    """Private memory of `size` bytes, every page touched."""
    block = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    touch(block)
    return block


def share(size):
    """Memory that forked children share, every page touched."""
    block = mmap.mmap(-1, size)
    touch(block)
    return block


def touch(block, size=None):
    for offset in range(0, size or len(block), PAGE):
        block[offset] = 1


class Holder:
    """A Python program that holds `size` bytes from the end of `__init__` to `release`."""

    def __init__(self, size, words=(sys.executable, "-I", "-S", "-c", HOLD)):
        self.process = subprocess.Popen([*words, str(size)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdout.readline() == b"held\n"

    def release(self):
        self.process.communicate(b"\n")


class Fork:
    """A forked child that runs `work` and holds its result from the end of `__init__` to `release`."""

    def __init__(self, work):
        done_read, done_write = os.pipe()
        go_read, self._go = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            with contextlib.suppress(BaseException):
                result = work()  # noqa: F841 - held
                os.write(done_write, b"d")
                os.read(go_read, 1)
            os._exit(0)
        os.close(done_write)
        os.close(go_read)
        assert os.read(done_read, 1) == b"d"
        os.close(done_read)

    def release(self):
        os.write(self._go, b"g")  # later siblings have inherited this end: closing it would tell nothing
        os.close(self._go)
        os.waitpid(self.pid, 0)


def settled():
    """Lets the helper read at its own pace, then has it read the tree: on a slow machine it may not have come to it."""
    time.sleep(0.25)
    helper = sampler.sampler()
    if helper is not None:
        helper.end(helper.begin())


INTERPRETER = 5 * MIB  # what a bare `python -I -S` holds by itself


def assert_holds(m, size, *, own=0):
    """Proven within max(2 MiB, 3%) of what was allocated and the programs' own needs; upper at most half above."""
    tolerance = max(2 * MIB, size * 3 // 100)
    assert size - tolerance <= m.peak_bytes <= size + own + tolerance
    assert size <= m.peak_upper_bytes <= 1.5 * (size + own)
