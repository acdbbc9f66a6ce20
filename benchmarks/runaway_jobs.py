"""Tasks that take 400 MB a second until something stops them, each in its own kind of memory; and quiet neighbours."""

import os
import subprocess
import sys
import time
from pathlib import Path

PIECE_BYTES = 4_000_000
BYTES_PER_S = 400_000_000
MOST_PIECES = 300


def grow(add):
    """Calls `add` at that rate."""
    began_s = time.monotonic()
    for number in range(1, MOST_PIECES):
        add()
        time.sleep(max(0.0, number * PIECE_BYTES / BYTES_PER_S - (time.monotonic() - began_s)))


def own_memory():
    held = []
    grow(lambda: held.append(bytearray(b"x") * PIECE_BYTES))


def child():
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import runaway_jobs; runaway_jobs.own_memory()"
    subprocess.run([sys.executable, "-c", code], check=False)


def numpy_arrays():
    import numpy

    held = []
    grow(lambda: held.append(numpy.ones(PIECE_BYTES // 8)))


def tmpfs():
    with Path(f"/dev/shm/membudget-runaway-{os.getpid()}").open("wb", buffering=0) as file:
        Path(file.name).unlink()
        grow(lambda: file.write(b"x" * PIECE_BYTES))


KINDS = {kind.__name__: kind for kind in (own_memory, child, numpy_arrays, tmpfs)}


def job(item):
    """`item` is the name of a kind, or `quiet` for a neighbour that does as it should, and a number."""
    name, number = item
    if name != "quiet":
        KINDS[name]()
    block = bytearray(b"x") * 50_000_000
    time.sleep(0.3)
    return len(block) + number
