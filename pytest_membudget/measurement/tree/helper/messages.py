"""What the measured process and its helper say to each other: one record a message, one line of JSON a record.

Commands go down one pipe, answers come up another, and events of the watchdog a third, since they come unasked.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from .shared_memory import SharedReading
from .shared_note import Start


class Limits(NamedTuple):
    """What ends a block while it runs. Sizes are bytes."""

    block_bytes: int | None = None  # above the start
    total_bytes: int | None = None  # of the whole tree
    grace_s: float = 0.0  # from the event until the helper ends the process itself
    last_words: list[str] | None = (
        None  # a command that is run before, with the facts as JSON on its standard input
    )
    directory: str = ""  # where that runs
    environment: dict[str, str] | None = None


class Begin(NamedTuple):
    """A block begins. `alone`: the root as it was then, where it had no children; else the tree is read now."""

    key: int
    interval_s: float | None = None  # between two scans at rest
    limits: Limits | None = None
    alone: Start | None = None
    shared: SharedReading | None = None  # the machine's shared memory, where `alone` does not have it
    answer: bool = False  # whether to answer `Begun` once the tree was read


class End(NamedTuple):
    """A block has ended; with `answer` the helper sends its `Summary`."""

    key: int
    answer: bool = False


class Quit(NamedTuple):
    """The helper is to end."""


class Ready(NamedTuple):
    """The first answer: the helper has read the tree, or why it cannot."""

    pid: int = 0
    members: int = 0
    hides_huge_pages: bool = False  # whether the machine may hand out huge pages and does not show how many
    failure: str = ""


class Begun(NamedTuple):
    """The tree was read; how many processes it has."""

    members: int


class Unknown(NamedTuple):
    """There is no such block."""

    key: int


class Summary(NamedTuple):
    """What was seen of one block. Sizes are bytes, `peak_*` above the start."""

    peak_low_bytes: int
    peak_high_bytes: int
    total_low_bytes: int
    start_bytes: int
    start_file_bytes: int
    end_bytes: int
    others_floor_bytes: int | None
    missed_bytes: int
    by_marks_bytes: int
    floor_bytes: int
    hidden_bytes: int
    seen: list[tuple[int, int]]  # process and the most that it was seen to hold
    timeline: list[tuple[float, int]]
    shared_high_bytes: int
    shared_total_low_bytes: int
    names: list[tuple[int, str]] = []  # noqa: RUF012 - a tuple's default, which is never changed
    members: int = 1
    interval_s: float = 0.0


class Exceeded(NamedTuple):
    """An event: a limit is proven to be exceeded. `killed`: by a child, which the helper has killed."""

    key: int
    killed: bool
    peak_bytes: int
    total_bytes: int
    pid: int
    name: str = ""


Message = Begin | End | Quit | Ready | Begun | Unknown | Summary | Exceeded
_KINDS = {kind.__name__: kind for kind in (Begin, End, Quit, Ready, Begun, Unknown, Summary, Exceeded)}
_NESTED = {"limits": Limits, "alone": Start, "shared": SharedReading}


def encode(message: Message, dumps: Any = json.dumps) -> bytes:
    """One line. `dumps` is `json.dumps`, given by a process whose tests may have replaced it."""
    return dumps([type(message).__name__, *message]).encode() + b"\n"  # type: ignore[no-any-return]


def decode(line: bytes, loads: Any = json.loads) -> Message:
    """The record of one line."""
    name, *values = loads(line)
    kind = _KINDS[name]
    message: Message = kind(*values)
    nested = {
        field: record(*value)
        for field, record in _NESTED.items()
        if (value := getattr(message, field, None)) is not None
    }
    return message._replace(**nested) if nested else message
