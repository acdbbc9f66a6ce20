"""Who leaks: allocation sites and object types that grow over some further calls.

Sites by `tracemalloc` for Python's allocators and by memray for others, types by the collector.
"""

from __future__ import annotations

import importlib
import sysconfig
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice, takewhile
from pathlib import Path
from typing import Any, NamedTuple

from msgspec.structs import replace

from pytest_membudget.measurement.growth import repeat as rounds
from pytest_membudget.measurement.growth.repeat import CallTooLongError, Rounds
from pytest_membudget.measurement.growth.samples import EXACT_BYTES, PAGED_BYTES
from pytest_membudget.originals import contextlib, gc, os, sys, tempfile, time, tracemalloc
from pytest_membudget.records.judgement import Culprit
from pytest_membudget.records.storage import from_here
from pytest_membudget.stats.growth import RESOLUTION_BYTES_PER_CALL, Trend

_TYPE_CALLS = 500
_TYPE_STAGE_S = 0.15
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
    counted, for the containers that grow are old. Numbers and text are no containers: they are counted as the
    latest entries of large containers that grew.
    """
    if gc.get_freeze_count() < _MOST_OBJECTS:
        gc.unfreeze()
    first = _census()
    before = _census()
    calls = repeated.make_calls(min(_TYPE_CALLS, most_calls), _TYPE_STAGE_S)
    now = _census()
    own = {id(part) for census in (first, before, now) for part in census}
    loose = _added_entries([each for each in now.holders if id(each) not in own], before.lengths)
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
_LEAST_BYTES = 0.5
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
        types = growing_types(repeated, most_calls) if repeated.counted_s < _TYPES_UNTIL * timeout_s else []
    except CallTooLongError:
        return ()
    # A few calls are few: what seems to grow by more than the whole leak is what else went on meanwhile.
    types = [each for each in types if each.bytes_per_call <= _MOST_BYTES_SHARE * heap_bytes_per_call]
    # What goes on growing elsewhere, in children for one, is no site's: a trifle in the heap beside it explains nothing.
    least_bytes = max(_LEAST_BYTES, _LEAST_BYTES_SHARE * _bytes_per_call(trends))
    return (*_largest(sites, least_bytes), *_largest(types, least_bytes))


def python_allocates(repeated: Rounds, trends: dict[str, Trend]) -> bool:
    """Whether Python's allocators hold half of what the heap grows by over some further calls."""
    heap = trends["heap_bytes"]
    heap_bytes_per_call = max(heap.slope, heap.grown / max(1, repeated.calls))
    with (
        repeated.without_own_memory(heap.slope),
        contextlib.suppress(CallTooLongError),
        _traced(frames=1),
    ):
        return _traced_bytes_per_call(repeated, _further_calls(trends)) >= heap_bytes_per_call / 2
    return False


def _traced_bytes_per_call(repeated: Rounds, most_calls: int) -> float:
    """Growth of what is held over some rounds of calls; 0 unless all of the second half hold more than all of the first.

    Where what is held only goes up and down, that comes by chance in one of 70 cases (the ways to choose 4 of 8).
    """
    calls, held_bytes = [], []
    # What grows in rare large steps needs more calls to show.
    further = min(max(_CALLS, repeated.calls // 16), most_calls) // _TRACED_ROUNDS
    for _ in range(_TRACED_ROUNDS):
        repeated.make_calls(max(1, further), _IN_ALL_S / _TRACED_ROUNDS)
        gc.collect()
        calls.append(repeated.calls)
        held_bytes.append(tracemalloc.get_traced_memory()[0])
    half = _TRACED_ROUNDS // 2
    if min(held_bytes[half:]) <= max(held_bytes[:half]):
        return 0.0
    return (min(held_bytes[half:]) - min(held_bytes[:half])) / (calls[half] - calls[0])


def _bytes_per_call(trends: dict[str, Trend]) -> float:
    return sum(max(0.0, trends[name].slope) for name in (*EXACT_BYTES, *PAGED_BYTES))


def _further_calls(trends: dict[str, Trend]) -> int:
    """As many calls as the machine can bear: what leaks goes on leaking."""
    bytes_per_call = _bytes_per_call(trends)
    count_per_call = max(trends[kind].slope for kind in ("descriptors", "threads", "children", "segments"))
    bearable = min(
        _MOST_FURTHER_BYTES / max(bytes_per_call, 1.0), _MOST_FURTHER_COUNT / max(count_per_call, 1e-6)
    )
    return max(_FEWEST_CALLS, int(bearable / 3))


def _largest(culprits: list[Culprit], least_bytes: float) -> list[Culprit]:
    ordered = sorted(culprits, key=lambda culprit: culprit.bytes_per_call, reverse=True)
    return [culprit for culprit in ordered[:_MOST_SHOWN] if culprit.bytes_per_call >= least_bytes]


_NATIVE_CODE = "native code"
NATIVE = f"{_NATIVE_CODE}: memory that no Python allocator handed out"

_FRAMES = 8
"""How many are traced, to get from a library to the user's line. Each further one makes every traced allocation slower."""
_SHOWN_FRAMES = 3
_MOST_CHARACTERS = 100
_WARM_UP_CALLS = 10
_CALLS = 500
_STAGE_S = 0.3
_IN_ALL_S = 0.6
_ENOUGH_SHARE = 1 / 3
_TRACED_ROUNDS = 8
_TRACING_NOISE_BYTES = 64 << 10
_TRACING_NOISE_PER_BLOCK_BYTES = 100
_TRACING_OVERHEAD = 2.5
"""What tracing takes is this many times what it says of itself: its small blocks have malloc's overhead (2 times)."""
_RUNNERS = {"_pytest", "pluggy", "unittest"}
"""Folders of what runs a test: their frames lead to the user's code and tell nothing of it."""
_OWN_PACKAGE = str(Path(__file__).parents[2]) + os.sep
_CALLERS = (rounds.__file__, f"{_OWN_PACKAGE}plugin")
"""Of ours, what calls the user's code; all else reads figures."""
_STANDARD_LIBRARY = sysconfig.get_path("stdlib") + os.sep
_LIBRARY_FOLDERS = (f"site-packages{os.sep}", f"dist-packages{os.sep}", _STANDARD_LIBRARY)


def growing_sites(repeated: Rounds, heap_bytes_per_call: float, most_calls: int) -> list[Culprit]:
    """Where the heap grows. Figures are scaled to the growth that was measured before.

    A list that was moved as a whole while allocations were traced would else count with all it held.
    """
    give_up_at = time.perf_counter() + _IN_ALL_S
    with _traced(_FRAMES):
        repeated.make_calls(min(_WARM_UP_CALLS, most_calls), _STAGE_S)
        if not tracemalloc.is_tracing():  # the function has stopped it
            return []
        tracemalloc.take_snapshot()  # fills the caches that a snapshot needs
        before = tracemalloc.take_snapshot()
        held_before_bytes = _untraced_bytes(repeated)
        calls, further = 0, _CALLS
        while True:
            calls += repeated.make_calls(min(further, most_calls), _STAGE_S)
            if not tracemalloc.is_tracing():
                return []
            untraced_bytes = _untraced_bytes(repeated) - held_before_bytes
            traced = _grown_sites(tracemalloc.take_snapshot(), before, calls)
            found = sum(site.bytes_per_call for site in traced)
            blocks = calls * sum(site.count_per_call for site in traced)
            native_bytes_per_call = 0.0
            if untraced_bytes > _TRACING_NOISE_BYTES + _TRACING_NOISE_PER_BLOCK_BYTES * blocks:
                native_bytes_per_call = max(0.0, min(untraced_bytes / calls, heap_bytes_per_call - found))
            found += native_bytes_per_call
            is_enough = found > _ENOUGH_SHARE * heap_bytes_per_call or calls >= most_calls
            if is_enough or time.perf_counter() > give_up_at:
                break
            # What grows in rare large steps needs more calls to show.
            further = max(calls, repeated.calls // 16)
    if native_bytes_per_call > found / 2:
        traced += _native_sites(repeated, native_bytes_per_call, most_calls)
    scale = min(1.0, heap_bytes_per_call / found) if found > 0 else 1.0
    return [replace(site, bytes_per_call=site.bytes_per_call * scale) for site in traced]


@contextmanager
def _traced(frames: int) -> Iterator[None]:
    """Traces allocations, with the depth that was chosen before where they are traced already."""
    if tracemalloc.is_tracing():
        yield
        return
    tracemalloc.start(frames)
    try:
        yield
    finally:
        tracemalloc.stop()


def _untraced_bytes(repeated: Rounds) -> int:
    """Heap in use, after a collection, beside what is traced and what the tracing takes."""
    held_bytes = repeated.held_bytes()
    traced_bytes, _ = tracemalloc.get_traced_memory()
    return held_bytes - traced_bytes - int(_TRACING_OVERHEAD * tracemalloc.get_tracemalloc_memory())


def _grown_sites(now: tracemalloc.Snapshot, before: tracemalloc.Snapshot, calls: int) -> list[Culprit]:
    return [
        Culprit("site", name, site.size_diff / calls, site.count_diff / calls)
        for site in now.compare_to(before, "traceback")
        if site.size_diff > 0 and (name := _site_name(site.traceback))
    ]


def _site_name(traceback: tracemalloc.Traceback) -> str:
    return _shown([(frame.filename, frame.lineno) for frame in reversed(list(traceback))])


def _shown(frames: Sequence[tuple[str, int]]) -> str:
    """Writes `file:line < caller:line`, the user's lines first; empty for what the check itself allocated.

    Where a library allocated for the user, the user's line is the first and the library's stands behind.
    """
    users = list(takewhile(lambda frame: not _is_ours(frame[0]), frames))
    if not users or (len(users) < len(frames) and not frames[len(users)][0].startswith(_CALLERS)):
        return ""
    called = list(takewhile(lambda frame: not _is_runner(frame[0]), users))
    if not called and len(users) < len(frames) and all(_is_runner(file) for file, _ in users):
        return ""  # what the runner did between two calls
    called = called or users
    inner = list(takewhile(lambda frame: _is_library(frame[0]), called))
    own = called[len(inner) :]
    if not own:
        inner, own = [], called
    behind = f" (in {_library_place(inner[0])})" if inner else ""
    lines = [_place(frame) for frame in own[:_SHOWN_FRAMES]]
    while len(lines) > 1 and len(" < ".join(lines) + behind) > _MOST_CHARACTERS:
        lines.pop()
    return shortened(" < ".join(lines) + behind)


def _is_runner(file: str) -> bool:
    return bool(_RUNNERS & set(Path(file).parts))


def shortened(text: str) -> str:
    """The end of a text that is too long for one line: a path says most there."""
    return text if len(text) <= _MOST_CHARACTERS else f"...{text[3 - _MOST_CHARACTERS :]}"


def _place(frame: tuple[str, int]) -> str:
    return _library_place(frame) if _is_library(frame[0]) else f"{from_here(frame[0])}:{frame[1]}"


def _library_place(frame: tuple[str, int]) -> str:
    """The file as it is imported: from the folder of installed packages, or of the standard library, on."""
    file, line = frame
    for folder in _LIBRARY_FOLDERS:
        file = file.rpartition(folder)[2]
    return f"{file}:{line}"


def _is_library(filename: str) -> bool:
    return filename.startswith(("<", _STANDARD_LIBRARY)) or "site-packages" in Path(filename).parts


def _is_ours(filename: str) -> bool:
    return filename == tracemalloc.__file__ or filename.startswith(_OWN_PACKAGE)


def _native_sites(repeated: Rounds, native_bytes_per_call: float, most_calls: int) -> list[Culprit]:
    """The Python lines that called the native code; `NATIVE` where nothing tells them.

    memray sees what compiled libraries allocate. It does not see calls through a pointer (`ctypes`), and only one of
    its trackers may be active in a process.
    """
    with contextlib.suppress(ImportError, OSError, RuntimeError):
        memray = importlib.import_module("memray")
        with tempfile.TemporaryDirectory(prefix="membudget-") as folder:
            capture = Path(folder, "capture")
            with memray.Tracker(capture):
                calls = repeated.make_calls(min(_CALLS, most_calls), _STAGE_S)
            sizes: Counter[str] = Counter()
            with memray.FileReader(capture) as reader:
                for record in reader.get_leaked_allocation_records(merge_threads=True):
                    frames = record.stack_trace(max_stacks=_FRAMES)
                    sizes[_shown([(file, line) for _, file, line in frames])] += record.size
        del sizes[""]
        native = [
            Culprit("site", f"{_NATIVE_CODE} called by {name}", size / calls) for name, size in sizes.items()
        ]
        if sum(site.bytes_per_call for site in native) > native_bytes_per_call / 2:
            return native
    return [Culprit("site", NATIVE, native_bytes_per_call)]
