"""Where the peak of a batch went: coordinator, workers, their tasks, results that wait, and the rest."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from pytest_membudget.measurement.high_water import resident_bytes
from pytest_membudget.records.run import Breakdown, LevelEvent
from pytest_membudget.runtime.executor.engine import Engine


class Recorder:
    """Looks at coordinator and workers while a batch runs and keeps the highest moment."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.limit_bytes = engine.settings.reading().limit.bytes
        self.workers = 0
        self.breakdown = Breakdown(
            peak_bytes=0,
            coordinator_bytes=0,
            workers_base_bytes=0,
            task_bytes=0,
            waiting_results_bytes=0,
            other_bytes=0,
        )
        self._events_before = len(engine.journal.events)

    def __enter__(self) -> Self:
        self._engine.dispatcher.observers.append(self.look)
        self._engine.dispatcher.wake()
        self.look()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        self._engine.dispatcher.observers.remove(self.look)
        self.look()

    @property
    def events(self) -> tuple[LevelEvent, ...]:
        """Events since the recorder began."""
        return self._engine.journal.events[self._events_before :]

    def look(self) -> None:
        """Takes one reading."""
        posts = list(self._engine.crew.posts)
        self.workers = max(self.workers, sum(1 for post in posts if post.in_flight), 1)
        coordinator_bytes = resident_bytes()
        if coordinator_bytes > self.breakdown.peak_bytes:
            self.breakdown = Breakdown(
                peak_bytes=coordinator_bytes,
                coordinator_bytes=coordinator_bytes,
                workers_base_bytes=0,
                task_bytes=0,
                waiting_results_bytes=0,
                other_bytes=0,
            )
