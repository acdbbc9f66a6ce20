"""What the tests of calibration run in fresh interpreters."""

import os
from pathlib import Path


def tenfold(path):
    kept = bytearray(10 * Path(path).stat().st_size)
    return kept, Path(path).read_bytes()


def fails_above_100_kb(path):
    if len(Path(path).read_bytes()) > 100_000:
        raise ValueError("too many columns")


def fails_always(path):
    raise KeyError("no such column")


def returns_at_once(path):
    return 1


def writes_beside_itself(path):
    Path("left-behind.txt").write_bytes(Path(path).read_bytes()[:10])


def is_killed(path):
    if Path(path).stat().st_size > 30_000:
        os.kill(os.getpid(), 9)


def sleeps(path):
    import time

    Path(path).read_bytes()
    time.sleep(60 if Path(path).stat().st_size > 150_000 else 0)


def takes_everything(path):
    if Path(path).stat().st_size > 30_000:
        kept = []
        while True:
            kept.append(bytearray(os.urandom(1) * 64_000_000))
