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


def leaves_a_thread(path):
    import threading
    import time

    threading.Thread(target=time.sleep, args=(3600,)).start()
    return Path(path).read_bytes()


def takes_everything(path):
    if Path(path).stat().st_size > 30_000:
        kept = []
        while True:
            kept.append(bytearray(os.urandom(1) * 64_000_000))


def tenfold_elsewhere(path):
    """Refuses to run but below a Dask worker."""
    pid, commands = os.getppid(), []
    while pid > 1:
        commands.append(Path(f"/proc/{pid}/cmdline").read_bytes())
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    if not any(b"dask" in command for command in commands):
        raise RuntimeError(f"runs under {commands!r}")
    return tenfold(path)


def only_copies(path):
    """Refuses the original."""
    if "membudget-calibration-" not in str(path):
        raise RuntimeError(f"{path} did not travel")
    return Path(path).read_bytes()


def marks_and_hangs(path):
    """Touches the file that its input names, then hangs."""
    import time

    Path(Path(path).read_text().splitlines()[0]).touch()
    time.sleep(600)


def table(item):
    """Takes a megabyte, and 2,000 bytes a cell."""
    rows, columns = item
    return bytearray(1_000_000), bytearray(2_000 * rows * columns)


def read_all(item):
    """Reads the paths in an item, or the files of a folder, ten times over."""
    paths = item[0] if isinstance(item, tuple) else [path for path in Path(item).iterdir() if path.is_file()]
    return [10 * Path(path).read_bytes() for path in paths]


def repeated(path, times):
    return times * Path(path).read_bytes()


class Reader:
    def __init__(self, times):
        self.times = times

    def read(self, path):
        return self.times * Path(path).read_bytes()

    __call__ = read


_SURVIVORS = []


def scattered(path):
    """Leaves one small object in many pages, so that Python keeps the others' memory."""
    blocks = [bytes(100) for _ in range(200_000)]
    _SURVIVORS.append(blocks[::1000])
    return len(blocks) + Path(path).stat().st_size + len(Path(path).read_bytes())


def holds(path):
    """Holds twenty times the file for long enough that two such calls meet, and returns little."""
    import time

    kept = b"\x01" * (20 * Path(path).stat().st_size)
    time.sleep(0.4)
    return len(kept)
