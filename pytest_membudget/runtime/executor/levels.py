"""The levels there are, best first, and the one that tasks run at now. It goes down when no worker can be had, never up."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from pytest_membudget.records.run import LevelEvent
from pytest_membudget.runtime.executor.task import Task
from pytest_membudget.runtime.workers.protocol import CannotStartError, Launcher

_logger = logging.getLogger("pytest_membudget.runtime")

STARTS_THAT_MAY_FAIL = 3
"""When so many workers in a row have died on their way up, their level counts as one that cannot start."""


class Levels:
    """Where workers come from."""

    def __init__(
        self, launchers: Sequence[Launcher], note: Callable[[LevelEvent], None], clock: Callable[[], float]
    ) -> None:
        self._launchers = list(launchers)
        self._note = note
        self._clock = clock
        self._at = 0
        self._failed_starts = 0
        self._has_proved_itself = False

    @property
    def launcher(self) -> Launcher:
        """The level that tasks run at now."""
        return self._launchers[self._at]

    @property
    def has_fallen(self) -> bool:
        """Whether this is not the first level any more."""
        return self._at > 0

    def launcher_for(self, task: Task) -> Launcher:
        """The level for this task: that of everybody, or threads for one of a small batch."""
        if task.in_thread and not task.ran_out:
            for launcher in self._launchers[self._at :]:
                if launcher.level == "thread":
                    return launcher
        return self.launcher

    def proved_itself(self, launcher: Launcher) -> None:
        """A worker came up and replied."""
        if launcher is self.launcher:
            self._failed_starts = 0
            self._has_proved_itself = True

    def failed_to_start(self, launcher: Launcher, detail: str) -> None:
        """A worker ended before it was ready. Several in a row mean that the level cannot start.

        Raises:
            CannotStartError: that is so, and there is no lower level.
        """
        if launcher is not self.launcher:
            return  # we have left that level already
        self._failed_starts += 1
        if self._failed_starts >= STARTS_THAT_MAY_FAIL:
            self._failed_starts = 0
            self.fall(launcher, f"{STARTS_THAT_MAY_FAIL} ended before they were ready, in a row ({detail})")

    def stuck(self, launcher: Launcher, detail: str) -> None:
        """A worker was ended since it did not come to its first call, or to one whose module it had to import.

        Where none has ever done so at this level the next would not either; else it is one failed start.

        Raises:
            CannotStartError: workers cannot start, and there is no lower level.
        """
        if self._has_proved_itself:
            self.failed_to_start(launcher, detail)
        elif launcher is self.launcher:
            self.fall(launcher, detail)

    def fall(self, launcher: Launcher, cause: str) -> None:
        """Goes down below `launcher`, with one line in the log.

        Raises:
            CannotStartError: there is no lower level.
        """
        at = self._launchers.index(launcher)
        if at + 1 == len(self._launchers):
            raise CannotStartError(f"no {launcher.level} worker can be started: {cause}")
        self._fall_to(max(self._at, at + 1), launcher, cause)

    def fall_to(self, launcher: Launcher, cause: str) -> None:
        """Goes down to that level at once."""
        self._fall_to(self._launchers.index(launcher), self.launcher, cause)

    def _fall_to(self, at: int, failed: Launcher, cause: str) -> None:
        self._at = at
        self._failed_starts = 0
        self._has_proved_itself = False
        event = LevelEvent(
            kind="fallback",
            level=failed.level,
            cause=f"no {failed.level} worker can be started: {cause}",
            next_step=f"continues with level {self.launcher.level!r}",
            at_s=self._clock(),
        )
        _logger.warning("%s", event)
        self._note(event)
