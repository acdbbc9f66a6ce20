"""How many tasks may run at once: fewer after a worker was lost, more again after a run of clean tasks."""

from __future__ import annotations


class Concurrency:
    """Halves after each loss, to 1 at least, and gets one back for every `recover_after` clean tasks in a row."""

    def __init__(self, most: int, recover_after: int) -> None:
        self.most = most
        self.now = most
        self._recover_after = recover_after
        self._clean = 0

    def lower_to(self, most: int) -> None:
        """Never more than `most` from now on."""
        self.most = max(1, min(self.most, most))
        self.now = min(self.now, self.most)

    def lost(self) -> None:
        """A worker was killed or a task ran out of memory."""
        self._clean = 0
        self.now = max(1, self.now // 2)

    def clean(self) -> bool:
        """A task ended as it should; True when that brought concurrency back to where it was."""
        if self.now >= self.most:
            return False
        self._clean += 1
        if self._clean < self._recover_after:
            return False
        self._clean = 0
        self.now += 1
        return self.now == self.most
