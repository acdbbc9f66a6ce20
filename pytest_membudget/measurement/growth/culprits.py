"""Who leaks: allocation sites and object types that grow over some further calls."""

from __future__ import annotations

from collections import Counter, deque
from itertools import islice
from typing import Any, NamedTuple

from pytest_membudget.measurement.growth.allocation_sites import growing_sites
from pytest_membudget.measurement.growth.call_timeout import CallTooLongError
from pytest_membudget.measurement.growth.repeat import Rounds
from pytest_membudget.measurement.growth.samples import EXACT_BYTES, PAGED_BYTES
from pytest_membudget.originals import contextlib, gc, sys
from pytest_membudget.records.growth import Culprit
from pytest_membudget.stats.growth import RESOLUTION_BYTES_PER_CALL, Trend

_CALLS = 500
_STAGE_S = 0.15
_MOST_OBJECTS = 150_000
_HOLDERS = frozenset({list, dict, deque})
_MANY = 100
_LATEST = 5000
_LEAST_CALLS_SHARE = 0.02
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
        if count >= _LEAST_CALLS_SHARE * calls:
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


_MOST_SHOWN = 5
_LEAST_BYTES_SHARE = 0.1
_MOST_BYTES_SHARE = 1.5
_FEWEST_CALLS = 8
_TYPES_UNTIL = 0.93
_MOST_FURTHER_BYTES = 64 << 20
_MOST_FURTHER_COUNT = 50


def find_culprits(repeated: Rounds, trends: dict[str, Trend], timeout_s: float) -> tuple[Culprit, ...]:
    """Makes some further calls of a leaking function; says what they added: sites, then types, each largest first.

    Types are left out where the time is nearly over.
    """
    heap_bytes_per_call = trends["heap_bytes"].slope
    most_calls = _further_calls(trends)
    try:
        sites = growing_sites(repeated, heap_bytes_per_call, most_calls)
        types = growing_types(repeated, most_calls) if repeated.elapsed_s < _TYPES_UNTIL * timeout_s else []
    except CallTooLongError:
        return ()
    # A few calls are few: what seems to grow by more than the whole leak is what else went on meanwhile.
    types = [each for each in types if each.bytes_per_call <= _MOST_BYTES_SHARE * heap_bytes_per_call]
    least_bytes = _LEAST_BYTES_SHARE * heap_bytes_per_call
    return (*_largest(sites, least_bytes), *_largest(types, least_bytes))


def _further_calls(trends: dict[str, Trend]) -> int:
    """As many calls as the machine can bear: what leaks goes on leaking."""
    bytes_per_call = sum(max(0.0, trends[name].slope) for name in (*EXACT_BYTES, *PAGED_BYTES))
    count_per_call = max(trends[kind].slope for kind in ("descriptors", "threads", "children", "segments"))
    bearable = min(
        _MOST_FURTHER_BYTES / max(bytes_per_call, 1.0), _MOST_FURTHER_COUNT / max(count_per_call, 1e-6)
    )
    return max(_FEWEST_CALLS, int(bearable / 3))


def _largest(culprits: list[Culprit], least_bytes: float) -> list[Culprit]:
    ordered = sorted(culprits, key=lambda culprit: culprit.bytes_per_call, reverse=True)
    return [culprit for culprit in ordered[:_MOST_SHOWN] if culprit.bytes_per_call >= least_bytes]
