"""Used where there is no helper process: a thread in this process that asks psutil about the children.

It cannot run while C code holds the interpreter's lock, and sees nothing that comes and goes between two samples. Of each
child the proven figure counts only its unique memory (USS), where the system gives that: memory shared by several
processes would else count several times.
"""

from __future__ import annotations

from pytest_membudget.measurement.process import high_water
from pytest_membudget.measurement.tree.helper.messages import Summary
from pytest_membudget.measurement.tree.helper.proc_reader import printable
from pytest_membudget.originals import contextlib, os, threading, time

INTERVAL_S = 0.05  # between two samples, by default


class InsideSampler:
    """Samples this process and its children from `start()` to `stop()`. All sizes are bytes."""

    def __init__(self, interval_s: float | None = None) -> None:
        self._interval_s = interval_s or INTERVAL_S
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="membudget-sampler", daemon=True)
        self._start_s = time.perf_counter()
        self._start_low = self._start_high = 0
        self._peak_low = self._peak_high = self._total_low = self._end = 0
        self._seen: dict[int, int] = {}
        self._names: dict[int, str] = {}
        self._timeline: list[tuple[float, int]] = []
        self._others_floor: int | None = None
        self.latest_bytes = 0
        """What the tree was proven to hold in the latest sample."""

    def start(self) -> None:
        """Takes the start and begins to sample."""
        self._start_low, self._start_high = self._sample()
        if len(self._seen) > 1:
            self._others_floor = 0
        self._thread.start()

    def stop(self) -> Summary | None:
        """Ends the thread; `None` where no other process was ever seen."""
        self._done.set()
        self._thread.join()
        self._add_sample()
        if len(self._seen) <= 1:
            return None
        stride = max(1, len(self._timeline) // 64 + 1)
        return Summary(
            self._peak_low,
            self._peak_high,
            self._total_low,
            self._start_high,
            self._end,
            seen=tuple(self._seen.items()),
            names=tuple(self._names.items()),
            timeline=self._timeline[::stride],
            others_floor_bytes=self._others_floor,
            members=2,
            interval_s=self._interval_s,
        )

    def _run(self) -> None:
        while not self._done.wait(self._interval_s):
            self._add_sample()

    def _add_sample(self) -> None:
        low, high = self._sample()
        self._end = self.latest_bytes = low
        self._total_low = max(self._total_low, low)
        self._peak_low = max(self._peak_low, low - self._start_high)
        self._peak_high = max(self._peak_high, high - self._start_low)
        self._timeline.append((time.perf_counter() - self._start_s, low - self._start_high))

    def _sample(self) -> tuple[int, int]:
        """What the tree holds now, at least and at most: of each child its unique memory, and all that it maps."""
        own = high_water.resident_bytes()
        low = high = own
        pid = os.getpid()
        self._seen[pid] = max(self._seen.get(pid, 0), own)
        with contextlib.suppress(ImportError):
            import psutil

            with contextlib.suppress(psutil.Error, OSError):
                for child in psutil.Process().children(recursive=True):
                    with contextlib.suppress(psutil.Error, OSError):
                        resident = child.memory_info().rss
                        low += _own_share(child)
                        high += resident
                        self._seen[child.pid] = max(self._seen.get(child.pid, 0), resident)
                        self._names.setdefault(child.pid, printable(child.name()))
        return low, high


def _own_share(child: object) -> int:
    import psutil

    assert isinstance(child, psutil.Process)
    with contextlib.suppress(psutil.Error, OSError, AttributeError):
        return int(child.memory_full_info().uss)
    return 0
