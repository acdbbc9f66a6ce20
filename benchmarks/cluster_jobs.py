"""What the tasks of the cluster's benchmark do."""

import time
from pathlib import Path


def take_as_much_as_the_file(path) -> int:
    """Touches as much memory as the file is long, and takes a moment."""
    held = bytearray(Path(path).stat().st_size)
    time.sleep(0.03)
    return len(held)


def five_milliseconds(number: int) -> int:
    time.sleep(0.005)
    return number
