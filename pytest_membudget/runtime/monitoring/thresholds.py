"""When a monitor cleans up, and what it reports: thresholds of resident memory, growth that will reach the limit soon."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from pytest_membudget.stats.growth import Slope
from pytest_membudget.units import format_share, format_size

REAL_LIMIT_SHARE = 0.95
"""An emergency at the latest: beyond this share of the real limit the kernel may end the process."""

ALERT_AHEAD_MIN = 5.0
"""Growth that reaches the limit within so many minutes is an alert."""

_AGAIN_SHARE = 0.02
"""Past the threshold still, cleaning up again is worth it when so much of the limit came on top."""

_logger = logging.getLogger("pytest_membudget")


class Reason(NamedTuple):
    """Why to clean up now."""

    text: str
    emergency: bool


class Thresholds:
    """Judges what is resident. All sizes are bytes.

    Args:
        limit_bytes: the soft limit that the shares are of.
        real_limit_bytes: what the kernel allows.
        cleanup_share: past this share of the limit each reading asks for a cleanup.
        emergency_factor: past this multiple of the limit it is an emergency.
        alerts: where it is reported.
    """

    def __init__(
        self,
        limit_bytes: int,
        real_limit_bytes: int,
        *,
        cleanup_share: float,
        emergency_factor: float,
        alerts: Alerts,
    ) -> None:
        self._limit_bytes = limit_bytes
        self._cleanup_bytes = int(cleanup_share * limit_bytes)
        self._emergency_bytes = int(min(emergency_factor * limit_bytes, REAL_LIMIT_SHARE * real_limit_bytes))
        self._alerts = alerts
        self._left_bytes = 0

    def reason(self, rss_bytes: int, due: str = "", *, again: bool = True) -> Reason | None:
        """Why to clean up: past a threshold, else because it is `due` (the reason); `None` where neither holds.

        Past the cleanup threshold and not `again`, only where memory came on top since the last cleanup.
        """
        emergency, past = rss_bytes >= self._emergency_bytes, rss_bytes >= self._cleanup_bytes
        shown = f"{format_size(rss_bytes)} resident, {format_share(rss_bytes / max(1, self._limit_bytes))} of the limit"
        self._alerts.update("threshold", holds=past, sentence=f"{shown} of {format_size(self._limit_bytes)}")
        self._alerts.update("emergency", holds=emergency, sentence=f"emergency: {shown}", level=logging.ERROR)
        grown = rss_bytes >= self._left_bytes + _AGAIN_SHARE * self._limit_bytes
        if not (due or (past and (again or grown))):
            return None
        return Reason(f"emergency: {shown}" if emergency else shown if past else due, emergency)

    def cleaned_up(self, left_bytes: int) -> None:
        """Records what the latest cleanup left."""
        self._left_bytes = left_bytes

    def check_growth(self, growth_per_min: Slope, rss_bytes: int) -> None:
        """An alert where memory grows for certain, and so fast that it reaches the limit soon."""
        room_bytes = self._limit_bytes - rss_bytes
        self._alerts.update(
            "growth",
            holds=growth_per_min.low > 0 and room_bytes < growth_per_min.low * ALERT_AHEAD_MIN,
            sentence=f"memory grows by {format_size(growth_per_min.value)} a minute and has {format_size(room_bytes)} left",
        )


class Alerts:
    """The latest alerts. A condition is reported once, and again only after it had passed."""

    def __init__(self, on_alert: Callable[[str], Any] | None, most: int) -> None:
        self.sentences: deque[str] = deque(maxlen=most)
        self._on_alert = on_alert
        self._lasting: set[str] = set()

    def update(self, condition: str, *, holds: bool, sentence: str, level: int = logging.WARNING) -> None:
        """Reports `sentence` where `condition` begins to hold."""
        if not holds:
            self._lasting.discard(condition)
            return
        if condition in self._lasting:
            return
        self._lasting.add(condition)
        self.sentences.append(sentence)
        _logger.log(level, sentence)
        if self._on_alert is None:
            return
        try:
            self._on_alert(sentence)
        except Exception:  # the callback must not end the work that is watched
            _logger.warning("the alert callback failed", exc_info=True)
