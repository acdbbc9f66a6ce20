"""What a worker process needs before it can start, found out where the standard library would wait for ever or say less."""

from __future__ import annotations

import threading
from pathlib import Path

_THREADS_PER_WORKER = 2  # the pool's manager and its queue's feeder


def check_threads() -> None:
    """Makes sure that the pool's threads can start; it would wait for ever for one that could not.

    Raises:
        RuntimeError: one of them cannot.
    """
    release = threading.Event()
    threads = []
    try:
        for _ in range(_THREADS_PER_WORKER):
            thread = threading.Thread(target=release.wait, name="membudget-probe", daemon=True)
            thread.start()
            threads.append(thread)
    finally:
        release.set()
        for thread in threads:
            thread.join()


def check_directory() -> None:
    """Makes sure that the worker can be told where it is to work.

    Raises:
        OSError: the working directory is gone.
    """
    try:
        Path.cwd()
    except OSError as error:
        raise OSError(error.errno, f"the working directory is gone ({error.strerror})") from error
