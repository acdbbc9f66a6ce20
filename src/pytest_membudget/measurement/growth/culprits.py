"""Who leaks: allocation sites and object types that grow over some further calls."""

from __future__ import annotations

import gc
import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from itertools import chain, takewhile
from pathlib import Path
from typing import NamedTuple

from msgspec.structs import replace

from pytest_membudget.measurement.growth import rounds
from pytest_membudget.measurement.growth.rounds import Rounds
from pytest_membudget.measurement.growth.time_limit import CallTooLongError
from pytest_membudget.records.growth import Culprit
from pytest_membudget.stats.growth import Trend

NATIVE = "native code: memory that no Python allocator handed out"

_FRAMES = 6
_SHOWN_FRAMES = 3
_MOST_SHOWN = 5
_WARM_UP_CALLS = 10
_FEWEST_CALLS = 8
_CALLS = 500
_STAGE_S = 0.3
_MOST_FURTHER_BYTES = 64 << 20
_MOST_FURTHER_COUNT = 50
_TRACING_NOISE_BYTES = 32 << 10
_MOST_OBJECTS = 150_000
_LEAST_SHARE = 0.1
_OWN_FOLDER = str(Path(__file__).parent)


def find_culprits(repeated: Rounds, trends: dict[str, Trend]) -> tuple[Culprit, ...]:
    """Makes some further calls of a leaking function; says what they added, by site and by type, largest first.

    Figures are scaled to the growth that was measured before: a list that was moved as a whole while allocations
    were traced would else count with all it held.
    """
    heap_bytes_per_call = trends["heap_bytes"].slope
    most_calls = _further_calls(trends)
    try:
        sites = _growing_sites(repeated, heap_bytes_per_call, most_calls)
        return (*sites, *_growing_types(repeated, heap_bytes_per_call, most_calls))
    except CallTooLongError:
        return ()


def _further_calls(trends: dict[str, Trend]) -> int:
    """As many calls as the machine can bear: what leaks goes on leaking."""
    bytes_per_call = trends["heap_bytes"].slope + trends["mapped_bytes"].slope
    count_per_call = max(trends[kind].slope for kind in ("descriptors", "threads", "children"))
    bearable = min(
        _MOST_FURTHER_BYTES / max(bytes_per_call, 1.0), _MOST_FURTHER_COUNT / max(count_per_call, 1e-6)
    )
    return max(_FEWEST_CALLS, int(bearable / 3))


def _growing_sites(repeated: Rounds, heap_bytes_per_call: float, most_calls: int) -> list[Culprit]:
    give_up_at = time.perf_counter() + 2 * _STAGE_S
    with _traced():
        repeated.make_calls(min(_WARM_UP_CALLS, most_calls), _STAGE_S)
        _snapshot()  # fills the caches that a snapshot needs
        before, held_before_bytes = _snapshot(), _untraced_bytes(repeated)
        calls = 0
        while True:  # what grows in rare large steps needs more calls to show
            calls += repeated.make_calls(min(max(_CALLS, calls, repeated.calls // 16), most_calls), _STAGE_S)
            native_bytes = _untraced_bytes(repeated) - held_before_bytes
            native_bytes_per_call = native_bytes / calls if native_bytes > _TRACING_NOISE_BYTES else 0.0
            traced = _grown_sites(_snapshot(), before, calls)
            found = sum(site.bytes_per_call for site in traced) + native_bytes_per_call
            if found > heap_bytes_per_call / 2 or calls >= most_calls or time.perf_counter() > give_up_at:
                break
    if native_bytes_per_call > found / 2:
        traced.append(Culprit("site", NATIVE, native_bytes_per_call))
    scale = min(1.0, heap_bytes_per_call / found) if found > 0 else 1.0
    return _largest([replace(site, bytes_per_call=site.bytes_per_call * scale) for site in traced])


@contextmanager
def _traced() -> Iterator[None]:
    """Traces allocations, with the depth that somebody else chose where they are traced already."""
    if tracemalloc.is_tracing():
        yield
        return
    tracemalloc.start(_FRAMES)
    try:
        yield
    finally:
        tracemalloc.stop()


def _snapshot() -> tracemalloc.Snapshot:
    gc.collect()
    return tracemalloc.take_snapshot()


def _untraced_bytes(repeated: Rounds) -> int:
    """Heap in use beside what is traced and what the tracing takes."""
    traced_bytes, _ = tracemalloc.get_traced_memory()
    return repeated.held_bytes() - traced_bytes - tracemalloc.get_tracemalloc_memory()


def _grown_sites(now: tracemalloc.Snapshot, before: tracemalloc.Snapshot, calls: int) -> list[Culprit]:
    return [
        Culprit("site", name, site.size_diff / calls, site.count_diff / calls)
        for site in now.compare_to(before, "traceback")
        if site.size_diff > 0 and (name := _site_name(site.traceback))
    ]


def _site_name(traceback: tracemalloc.Traceback) -> str:
    """Writes `file:line < caller:line`, the allocation first; empty for what the tracing itself allocated."""
    frames = list(reversed(list(traceback)))
    users = list(takewhile(lambda frame: not _is_ours(frame.filename), frames))
    if len(users) < len(frames) and frames[len(users)].filename != rounds.__file__:
        return ""
    return " < ".join(f"{frame.filename}:{frame.lineno}" for frame in users[:_SHOWN_FRAMES])


def _is_ours(filename: str) -> bool:
    return filename == tracemalloc.__file__ or filename.startswith(_OWN_FOLDER)


def _growing_types(repeated: Rounds, heap_bytes_per_call: float, most_calls: int) -> list[Culprit]:
    """Types whose objects pile up, or whose objects grow.

    What existed before the check is frozen, and `gc` lists only what is new; where that is little enough, all is
    looked at, for the containers that grow are old.
    """
    if gc.get_freeze_count() < _MOST_OBJECTS:
        gc.unfreeze()
    before = _census(ignored=())
    calls = repeated.make_calls(min(_CALLS, most_calls), _STAGE_S / 2)
    now = _census(ignored=(id(before),))
    nothing = _Kind(0, 0)
    grown = [
        Culprit(
            "type", name, (kind.size_bytes - old.size_bytes) / calls, (kind.objects - old.objects) / calls
        )
        for name, kind in now.items()
        for old in (before.get(name, nothing),)
    ]
    return _largest([kind for kind in grown if kind.bytes_per_call > _LEAST_SHARE * heap_bytes_per_call])


class _Kind(NamedTuple):
    """Objects of one type: how many, and their bytes without their contents."""

    objects: int
    size_bytes: int


def _census(ignored: Collection[int]) -> dict[str, _Kind]:
    """All objects by the name of their type.

    The collector lists containers only; numbers and text are found as what the containers hold. Containers whose
    `id` is `ignored` are ours.
    """
    gc.collect()
    containers = [found for found in gc.get_objects() if id(found) not in ignored]
    held = {id(found): found for found in gc.get_referents(*containers) if not gc.is_tracked(found)}
    counts: Counter[type] = Counter(map(type, chain(containers, held.values())))
    sizes: dict[type, int] = dict.fromkeys(counts, 0)
    for found in chain(containers, held.values()):
        try:
            sizes[type(found)] += sys.getsizeof(found)
        except Exception:  # noqa: S112 - a type whose __sizeof__ raises is counted without its bytes
            continue
    kinds: dict[str, _Kind] = {}
    for kind, count in counts.items():
        name = f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")
        same = kinds.get(name, _Kind(0, 0))
        kinds[name] = _Kind(same.objects + count, same.size_bytes + sizes[kind])
    return kinds


def _largest(culprits: list[Culprit]) -> list[Culprit]:
    ordered = sorted(culprits, key=lambda culprit: culprit.bytes_per_call, reverse=True)
    least = ordered[0].bytes_per_call * _LEAST_SHARE if ordered else 0.0
    return [culprit for culprit in ordered[:_MOST_SHOWN] if culprit.bytes_per_call >= least]
