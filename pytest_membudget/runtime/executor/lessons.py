"""When tasks that wait are charged anew by what the finished ones have taught."""

from __future__ import annotations

_FEW = 8


class Lessons:
    """Says when: to estimate a whole line takes milliseconds, and most tasks teach little.

    At the first task that took more than it was charged, and where more of them do, after 8 further tasks or an eighth of
    all so far. Else at 8 tasks, at 16, at 32 and so on.
    """

    def __init__(self) -> None:
        self._learned = 0
        self._exceeded = False
        self._next_if_exceeded = 1
        self._next = _FEW

    def are_due(self, *, exceeded: bool) -> bool:
        """Notes one more finished task, and whether it took more than it was charged."""
        self._learned += 1
        self._exceeded = self._exceeded or exceeded
        if self._learned < (self._next_if_exceeded if self._exceeded else self._next):
            return False
        self._exceeded = False
        self._next_if_exceeded = self._learned + max(_FEW, self._learned // 8)
        self._next = max(_FEW, 2 * self._learned)
        return True
