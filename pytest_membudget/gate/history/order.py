"""Two histories in one order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar


class _Run(Protocol):
    @property
    def digest(self) -> str: ...
    @property
    def revision(self) -> str: ...
    @property
    def created(self) -> str: ...


R = TypeVar("R", bound=_Run)


def interleaved(mine: Sequence[R], theirs: Sequence[R]) -> list[R]:
    """All runs of both, each once; either side keeps its own order.

    Where both have a revision or a run, they meet there; between two such places the older run comes first.
    """
    place = {run.digest: index for index, run in enumerate(mine)}
    last_of = {run.revision: index for index, run in enumerate(mine) if run.revision}
    meeting = {place.get(run.digest, last_of.get(run.revision)) for run in theirs}
    ordered: list[R] = []
    here = 0
    for run in theirs:
        meets = place.get(run.digest, last_of.get(run.revision))
        end = here
        if meets is not None:
            end = max(here, meets + 1)
        else:
            while end < len(mine) and end not in meeting and mine[end].created <= run.created:
                end += 1
        ordered += mine[here:end]
        ordered += [] if run.digest in place else [run]
        here = end
    return ordered + list(mine[here:])
