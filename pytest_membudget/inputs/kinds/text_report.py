"""text: a report of delivered messages as opportunistic-network simulators write it, one message a line.

Lines that start with # are comments. The ten fields are named in the second one.
"""

from __future__ import annotations

from pytest_membudget.inputs.format import Draw, filling

OPENING = b"# delivered messages\n# time id size hops delay from to ttl response path\n"
_LAST = "# "
SMALLEST_CLOSING = len(_LAST) + 1


def record(draw: Draw, identifier: str) -> str:
    """One delivered message with the path it took."""
    hosts = [f"{draw.pick('pcwt')}{draw.whole(0, 200)}" for _ in range(draw.whole(2, 7))]
    return (
        f"{draw.money(43200)} M{identifier} {draw.whole(50, 1000)}000 {len(hosts) - 1} {draw.money(9000)} "
        f"{hosts[0]} {hosts[-1]} {draw.whole(1, 300)} {draw.pick('YN')} {'->'.join(hosts)}\n"
    )


def closing(room: int) -> str:
    """A last comment that takes up the room."""
    return f"{_LAST}{filling(room - SMALLEST_CLOSING)}\n"
