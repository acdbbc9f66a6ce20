"""Pools of libraries with an allocator of their own that gives nothing back when asked.

Arrow's pool gives back what the calling thread freed, and not what its own threads did. What is in use of it is known.

polars has a jemalloc inside, whose calls it does not export. What it frees stays resident for about a second and then
goes by itself. In use or free cannot be told apart from outside, so what is known is how much there is at most: what is
resident and anonymous, and neither malloc's nor in Python's arenas.
"""

from __future__ import annotations

from typing import NamedTuple

from pytest_membudget.measurement.process import heap, high_water
from pytest_membudget.originals import contextlib, os, sys, time

WORTH_SAYING_BYTES = 16 * 1024 * 1024
"""Stacks of threads and the like lie below."""

SETTING = "_RJEM_MALLOC_CONF"
AT_ONCE = "dirty_decay_ms:0,muzzy_decay_ms:0"
"""With this setting, made before the program starts, polars gives memory back as soon as it is free."""


_MOST_WAITING_S = 0.03
_ONE_WAIT_S = 0.001


class Pool(NamedTuple):
    """A library that owns a pool, and the most that its pool may hold, in bytes."""

    owner: str
    most_bytes: int


def read_pool(arena_bytes: int) -> Pool | None:
    """The pool of a loaded library that may hold free memory, after a trim; `arena_bytes` are those of Python's arenas."""
    owner, used_bytes = _owner()
    if not owner:
        return None
    known = heap.read_heap()
    if not known.system_bytes:
        return None
    resident_bytes, shared_bytes = high_water.resident_and_shared_bytes()
    # After a trim little is resident of what malloc has and is not in use.
    malloc_bytes = known.used_bytes + known.mapped_bytes
    most_bytes = resident_bytes - shared_bytes - malloc_bytes - arena_bytes - used_bytes
    return Pool(owner, most_bytes) if most_bytes > WORTH_SAYING_BYTES else None


def wait_for_frees() -> None:
    """Waits until Arrow's threads have freed what the calling thread uses no more: they do so up to 20 ms later.

    What is in use for longer is held by the program.
    """
    waited_s = 0.0
    while waited_s < _MOST_WAITING_S and _owner()[1] > WORTH_SAYING_BYTES:
        time.sleep(_ONE_WAIT_S)
        waited_s += _ONE_WAIT_S


def _owner() -> tuple[str, int]:
    """The loaded library with such a pool, and what it says to be in use of it."""
    if "polars" in sys.modules and AT_ONCE not in os.environ.get(SETTING, ""):
        return "polars", 0
    # A module that is imported only half, or a release without these calls, has used no pool.
    with contextlib.suppress(AttributeError):
        arrow = sys.modules.get("pyarrow")
        if arrow is not None and arrow.default_memory_pool().backend_name != "system":
            return "pyarrow", int(arrow.total_allocated_bytes())
    return "", 0
