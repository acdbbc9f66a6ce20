"""What the tasks of the makespan benchmark do. Workers import this and not the benchmark, whose imports they would keep."""

import time
from pathlib import Path


def work(path):
    """Holds the file's size in memory for the time that its name says; when that was, until it was given back."""
    began = time.monotonic()
    held = bytearray(Path(path).stat().st_size)
    time.sleep(max(0.0, began + int(Path(path).stem.split("-")[1]) / 1000 - time.monotonic()))
    size = len(held)
    del held
    return began, time.monotonic(), size
