"""Types whose objects pile up, or grow, over some further calls."""

from __future__ import annotations

import gc
import sys
from collections import Counter
from collections.abc import Collection
from itertools import chain

from pytest_membudget.measurement.growth.rounds import Rounds
from pytest_membudget.records.growth import Culprit
from pytest_membudget.stats.growth import RESOLUTION_BYTES_PER_CALL

_CALLS = 500
_STAGE_S = 0.15
_MOST_OBJECTS = 150_000


def growing_types(repeated: Rounds, most_calls: int) -> list[Culprit]:
    """Types whose objects pile up, or whose objects grow.

    What existed before the check is frozen, and `gc` lists only what is new; where that is little enough, all is
    looked at, for the containers that grow are old.
    """
    if gc.get_freeze_count() < _MOST_OBJECTS:
        gc.unfreeze()
    counts_before, sizes_before = _census(ignored=())
    calls = repeated.make_calls(min(_CALLS, most_calls), _STAGE_S)
    counts, sizes = _census(ignored=(id(counts_before), id(sizes_before)))
    grown = {name: sizes[name] - sizes_before[name] for name in counts}
    return [
        Culprit("type", name, grown_bytes / calls, (counts[name] - counts_before[name]) / calls)
        for name, grown_bytes in grown.items()
        if grown_bytes > RESOLUTION_BYTES_PER_CALL * calls
    ]


def _census(ignored: Collection[int]) -> tuple[Counter[str], Counter[str]]:
    """How many objects of each type there are, by its name, and their bytes without their contents.

    The collector lists containers only; numbers and text are found as what the containers hold. Containers whose
    `id` is `ignored` are ours.
    """
    gc.collect()
    containers = [found for found in gc.get_objects() if id(found) not in ignored]
    held = {id(found): found for found in gc.get_referents(*containers) if not gc.is_tracked(found)}
    kinds: dict[type, int] = {}
    kind_bytes: dict[type, int] = {}
    for found in chain(containers, held.values()):
        kind = type(found)
        kinds[kind] = kinds.get(kind, 0) + 1
        kind_bytes.setdefault(kind, 0)
        try:
            kind_bytes[kind] += sys.getsizeof(found)
        except Exception:  # noqa: S112 - a type whose __sizeof__ raises is counted without its bytes
            continue
    counts: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for kind, count in kinds.items():
        name = f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")
        counts[name] += count
        sizes[name] += kind_bytes[kind]
    return counts, sizes
