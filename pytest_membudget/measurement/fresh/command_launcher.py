"""The small process that starts a measured command and tells how it ended. Standard library only.

What the kernel tells of a command's peak (`ru_maxrss`) is never less than what the process that started it held. So a
small process starts it, and not the measuring one. Run as `python -I -S command_launcher.py ORDERS RESULTS COMMAND…`.
"""

from __future__ import annotations

import json
import os
import signal
import sys


def main(orders: int, results: int, command: list[str]) -> None:
    """Says that it is ready, waits for a byte of `orders`, runs the command, tells how it ended, and waits once more.

    `orders` and `results` are descriptors of pipes. What is told is one line of JSON each.
    """
    os.set_inheritable(orders, False)
    os.set_inheritable(results, False)
    _tell(results, {"ready": True})
    if not os.read(orders, 1):
        return
    # The terminal sends Ctrl-C to the command as well; this process stays to tell how that ended.
    heard = [
        n for n in (signal.SIGINT, signal.SIGQUIT) if signal.signal(n, signal.SIG_IGN) is not signal.SIG_IGN
    ]
    try:
        pid = os.posix_spawnp(command[0], command, os.environ, setsigdef=heard)
    except OSError as error:
        _tell(results, {"refused": error.errno})
        return
    _, status, usage = os.wait4(pid, 0)
    _tell(results, {"pid": pid, "status": status, "most": usage.ru_maxrss * 1024, "floor": _high_water()})
    os.read(orders, 1)


def _high_water() -> int:
    """The most that this process ever held, in bytes: what the kernel reports of the command is at least that."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as stream:  # noqa: PTH123 - starts faster
        return next(int(line.split()[1]) * 1024 for line in stream if line.startswith("VmHWM:"))


def _tell(results: int, facts: dict[str, object]) -> None:
    os.write(results, json.dumps(facts).encode() + b"\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
