"""Says what is urgent: through `logging`, to a callback, and in the report."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import Any

_logger = logging.getLogger("pytest_membudget")


class Alerts:
    """The latest alerts. A condition is said once, and again only after it had passed."""

    def __init__(self, on_alert: Callable[[str], Any] | None, most: int) -> None:
        self.said: deque[str] = deque(maxlen=most)
        self._on_alert = on_alert
        self._lasting: set[str] = set()

    def update(self, condition: str, *, holds: bool, sentence: str, level: int = logging.WARNING) -> None:
        """Says `sentence` where `condition` begins to hold."""
        if not holds:
            self._lasting.discard(condition)
            return
        if condition in self._lasting:
            return
        self._lasting.add(condition)
        self.said.append(sentence)
        _logger.log(level, sentence)
        if self._on_alert is None:
            return
        try:
            self._on_alert(sentence)
        except Exception:  # whoever listens must not end the work that is watched
            _logger.warning("the alert callback failed", exc_info=True)
