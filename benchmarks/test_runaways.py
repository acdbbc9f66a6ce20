"""Is a task that outgrows its limit ended in time, and are its neighbours left alone?

RUNAWAYS of them (40 by default), a quarter of each kind, beside as many quiet neighbours, with a limit of 200 MB. What a tree holds is
read from outside every 2 ms: how long it stays above the limit and how far it comes. No peer has a limit for each task.
"""

import os
import statistics
import threading
import time
from pathlib import Path

import pytest
from runaway_jobs import KINDS, job
from tables import print_table

from pytest_membudget import ExecutorPolicy, FallbackExecutor, TaskOverLimitError
from pytest_membudget.measurement.process.children import descendants
from pytest_membudget.runtime.workers.files_in_memory import open_files

pytestmark = pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="reads /proc")
RUNAWAYS = int(os.environ.get("RUNAWAYS", "40"))
MB = 1_000_000
LIMIT_BYTES = 200 * MB
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Watch:
    """What the trees of workers hold above their lowest, read from outside."""

    def __init__(self, executor):
        self._driver = executor._engine.driver  # noqa: SLF001 - the workers, to be read from outside
        self._low, self._first_s, self._last_s, self._peak = {}, {}, {}, {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        while not self._ended.wait(0.002):
            for connection in list(self._driver._effects.connections.values()):  # noqa: SLF001 - their ids alone
                if connection.worker.pid is not None:
                    self._read(connection.worker.pid)

    def _read(self, worker):
        held_bytes = _held_bytes(worker)
        if held_bytes == 0:
            return
        low = self._low[worker] = min(held_bytes, self._low.get(worker, held_bytes))
        added_bytes = held_bytes - low
        if added_bytes > LIMIT_BYTES:
            now_s = time.monotonic()
            self._first_s.setdefault(worker, now_s)
            self._last_s[worker] = now_s
            self._peak[worker] = max(added_bytes, self._peak.get(worker, 0))

    def close(self):
        self._ended.set()
        self._thread.join()
        seconds = [self._last_s[worker] - first_s for worker, first_s in self._first_s.items()]
        return seconds or [0.0], list(self._peak.values()) or [LIMIT_BYTES]


def _held_bytes(worker):
    """Anonymous and shared memory of a tree, and what it holds open in tmpfs; 0 where the worker is gone."""
    total = 0
    tree = [worker, *descendants(worker)]
    for pid in tree:
        try:
            fields = Path(f"/proc/{pid}/status").read_text().split("RssAnon:")[1].split()
        except (OSError, IndexError):
            continue
        total += int(fields[0]) * 1024
    return total + open_files(tree).held_bytes(0.0) if total else 0


def test_runaways_are_ended_in_time_and_named(figure):
    kinds = list(KINDS)
    items = []
    for number in range(RUNAWAYS):
        items += [(kinds[number % len(kinds)], number), ("quiet", number)]
    policy = ExecutorPolicy(limit=LIMIT_BYTES)
    with FallbackExecutor(2, budget=4 * LIMIT_BYTES, policy=policy) as executor:
        watch = Watch(executor)
        outcomes = executor.run(job, items, memory="150 MB").outcomes
        seconds, peaks = watch.close()
    rows = [("", "ended", "named with both numbers")]
    for kind in kinds:
        found = [outcome for outcome in outcomes if outcome.item[0] == kind]
        named = sum(
            isinstance(each.error, TaskOverLimitError) and each.error.reached > LIMIT_BYTES for each in found
        )
        rows.append(
            (kind, f"{sum(each.cause == 'over-limit' for each in found)} of {len(found)}", str(named))
        )
    print_table(f"{RUNAWAYS} runaways at 400 MB/s, limit 200 MB", rows)
    neighbours = [outcome for outcome in outcomes if outcome.item[0] == "quiet"]
    lost = sum(not outcome.ok or outcome.attempts != 1 for outcome in neighbours)
    figure(
        "seen above the limit for",
        f"{max(seconds):.3f} s (median {statistics.median(seconds):.3f})",
        "0.25 s",
    )
    figure("most that a tree held", f"{max(peaks) / MB:.0f} MB", "220 MB")
    figure("neighbours lost or repeated", f"{lost} of {len(neighbours)}", "none")
    assert all(outcome.cause == "over-limit" for outcome in outcomes if outcome.item[0] != "quiet")
    assert not lost
    assert max(peaks) <= 1.1 * LIMIT_BYTES
    assert max(seconds) <= 0.25
