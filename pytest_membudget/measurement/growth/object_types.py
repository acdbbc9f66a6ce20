"""Types whose objects pile up over some further calls."""

from __future__ import annotations

from collections import Counter, deque
from itertools import islice
from typing import Any, NamedTuple

from pytest_membudget.measurement.growth.repeat import Rounds
from pytest_membudget.originals import contextlib, gc, sys
from pytest_membudget.records.growth import Culprit
from pytest_membudget.stats.growth import RESOLUTION_BYTES_PER_CALL

_CALLS = 500
_STAGE_S = 0.15
_MOST_OBJECTS = 150_000
_HOLDERS = frozenset({list, dict, deque})
_MANY = 100
_LATEST = 5000
_LEAST_SHARE = 0.02
"""Objects that are added in fewer than one of fifty calls are taken for the interpreter's."""


class _Census(NamedTuple):
    """The containers there are: the number of each type, and those that hold many things."""

    counts: Counter[type]
    lengths: dict[int, int]
    """Of lists, deques and dicts with a hundred entries or more, by `id`."""
    holders: list[Any]
    mean_bytes: dict[type, float]
    """Of the latest containers, without what they hold."""


def growing_types(repeated: Rounds, most_calls: int) -> list[Culprit]:
    """Types whose objects pile up over some further calls.

    What existed before the check is frozen, and `gc` lists only what is new; where that is little enough, all is
    looked at, for the containers that grow are old. Numbers and text are no containers: they are counted as the
    latest entries of large containers that grew.
    """
    if gc.get_freeze_count() < _MOST_OBJECTS:
        gc.unfreeze()
    first = _census()
    before = _census()
    calls = repeated.make_calls(min(_CALLS, most_calls), _STAGE_S)
    now = _census()
    loose = _added_entries(now.holders, before.lengths)
    ours = (
        before.counts - first.counts
    )  # what one census leaves for the next to find; made only now, or it were found too
    counts = now.counts - before.counts - ours
    counts.update(map(type, loose))
    mean_bytes = now.mean_bytes | _mean_bytes(loose)
    added: Counter[str] = Counter()
    added_bytes: Counter[str] = Counter()
    for kind, count in counts.items():
        if count >= _LEAST_SHARE * calls:
            name = f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")
            added[name] += count
            added_bytes[name] += round(count * mean_bytes.get(kind, 0.0))
    return [
        Culprit("type", name, grown_bytes / calls, added[name] / calls)
        for name, grown_bytes in added_bytes.items()
        if grown_bytes > RESOLUTION_BYTES_PER_CALL * calls
    ]


def _census() -> _Census:
    gc.collect()
    containers = gc.get_objects()
    holders = [found for found in containers if type(found) in _HOLDERS and len(found) >= _MANY]
    return _Census(
        counts=Counter(map(type, containers)),
        lengths={id(holder): len(holder) for holder in holders},
        holders=holders,
        mean_bytes=_mean_bytes(containers[-_LATEST:]),
    )


def _added_entries(holders: list[Any], lengths_before: dict[int, int]) -> list[Any]:
    """The latest entries of what has become longer, each object once, containers left out."""
    entries: dict[int, Any] = {}
    for holder in holders:
        added = len(holder) - lengths_before.get(id(holder), 0)
        # Another thread may change a dict or a deque while it is read here.
        with contextlib.suppress(RuntimeError):
            for entry in islice(reversed(holder), max(0, added)):
                entries[id(entry)] = entry
                if type(holder) is dict:
                    entries[id(holder[entry])] = holder[entry]
    return [entry for entry in entries.values() if not gc.is_tracked(entry)]


def _mean_bytes(objects: list[Any]) -> dict[type, float]:
    """Mean size of the objects of each type."""
    sizes: Counter[type] = Counter()
    for found in objects:
        try:
            sizes[type(found)] += sys.getsizeof(found)
        except Exception:  # noqa: S112 - a type whose __sizeof__ raises is counted without its bytes
            continue
    counts = Counter(map(type, objects))
    return {kind: size / counts[kind] for kind, size in sizes.items()}
