"""The same work, its input given as a path, a tuple, a folder, a row or a number: a tenth of a second and as many megabytes as it says."""

import os
import time
from pathlib import Path

BYTES_PER_BYTE = 100


def hold(size_bytes):
    block = bytearray(b"x") * size_bytes
    time.sleep(0.1)
    return len(block)


def by_path(path):
    return hold(Path(path).stat().st_size * BYTES_PER_BYTE)


def by_tuple(pair):
    return by_path(pair[0])


def by_folder(folder):
    return sum(by_path(entry.path) for entry in os.scandir(folder))


def by_row(row):
    return hold(row["megabytes"] * 1_000_000)


def by_number(megabytes):
    return hold(megabytes * 1_000_000)
