"""Tests of real processes wait for a state, never for a time."""

import contextlib
import time

import psutil


def wait_until(condition, within_s=60):
    end_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end_s, f"waited in vain for {within_s} s"
        time.sleep(0.02)


def is_alive(process):
    """Whether a process, or the one of that number, runs; one that only waits to be reaped does not."""
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(process) if isinstance(process, int) else process
        return process.is_running() and process.status() not in {psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD}
    return False
