"""The small process between us and a command: it starts the command, keeps its limits, and ends its tree. Standard library only.

```text
we ── lifeline ──▶ guard ── posix_spawn ──▶ command ── … ──▶ its tree
   ◀── messages ──
```
Why a process of its own:

- It ends the tree when its caller is gone, SIGKILL included: the kernel closes the lifeline.
- It is a subreaper (Linux): what the command starts stays below it, whatever forks twice or opens a session. So the tree
  can be walked, measured and ended whole. To make the caller one would change what its own `wait` sees.
- `ru_maxrss` of a command is never less than what its parent held at the start: this parent holds 10 MB.

Run as `python -I -S guard.py LIFELINE MESSAGES ORDERS COMMAND…`; ORDERS are JSON. The caller's end is `launcher`.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import time
from typing import NamedTuple

START, LEAVE = b"s", b"l"
"""Bytes on the lifeline: start the command; end without ending what it left running. Its end means: end everything."""

CHECK_S = 0.01
"""Seconds between two checks of a limit. At 400 MB/s a tree grows by 4 MB meanwhile."""
CHECK_REST = 10
"""A check may take this part of the time: one that reads proportional sizes costs 9 ms per GiB."""
CALLER_S = 1.0
"""A fork of the caller may hold the lifeline open after the caller's death, so its parent's number is checked as well."""
ENDING_S = 5.0
_PR_SET_CHILD_SUBREAPER = 36


class Orders(NamedTuple):
    """How to run the command. Sizes are bytes."""

    caller: int  # process number
    limit_bytes: int | None = None  # for the whole tree
    timeout_s: float | None = None
    own_session: bool = True  # so that Ctrl-C at the terminal does not reach it


class Message(NamedTuple):
    """What the guard says: `ready`, `started` with the command's `pid`, `refused` with an `errno`, and at the end `ended`."""

    kind: str
    pid: int = 0
    errno: int = 0
    status: int = 0  # as `waitpid` gives it
    reason: str = ""  # "limit" or "timeout", where the guard ended it
    reached_bytes: int = 0  # what the tree was proven to hold when it broke the limit
    largest_bytes: int = 0  # `ru_maxrss` of the command: its largest process, never less than `floor_bytes`
    floor_bytes: int = 0  # what the guard held when it started the command


def encode(value: Orders | Message) -> bytes:
    """One line of JSON."""
    return json.dumps(value._asdict()).encode() + b"\n"


class Guard:
    """One command, from its start to the end of everything that it started."""

    def __init__(self, lifeline: int, messages: int, orders: Orders) -> None:
        self._lifeline = lifeline
        self._messages = messages
        self._orders = orders
        self._pid = 0
        self._reason = ""
        self._reached_bytes = 0
        self._next_check_s = 0.0
        self._deadline_s = float("inf")
        self._leads_group = False
        self._told = False

    def run(self, command: list[str]) -> None:
        """Starts the command when the caller says so, and returns when it and its tree have ended or may be left."""
        os.set_inheritable(self._lifeline, False)
        os.set_inheritable(self._messages, False)
        self._send(Message("ready"))
        if os.read(self._lifeline, 1) != START:
            return
        # What the terminal sends to the command must not end its guard.
        ours = (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP)
        heard = [number for number in ours if signal.signal(number, signal.SIG_IGN) is not signal.SIG_IGN]
        _become_subreaper()
        if self._orders.own_session:
            with contextlib.suppress(OSError):  # forbidden in some sandboxes
                os.setsid()
        wakeup = _wakeup_at_child_end()
        floor_bytes = _high_water_bytes()
        try:
            # Python ignores SIGPIPE and SIGXFSZ, programs expect that they end them.
            self._pid = self._spawn(command, [*heard, signal.SIGPIPE, signal.SIGXFSZ])
        except OSError as error:
            self._send(Message("refused", errno=error.errno or 0))
            return
        self._send(Message("started", pid=self._pid))
        if self._orders.timeout_s is not None:
            self._deadline_s = time.monotonic() + self._orders.timeout_s
        self._watch(wakeup, floor_bytes)

    def _spawn(self, command: list[str], default: list[signal.Signals]) -> int:
        if self._orders.own_session:
            with contextlib.suppress(PermissionError):  # by a sandbox that forbids setpgid
                pid = os.posix_spawnp(command[0], command, os.environ, setsigdef=default, setpgroup=0)
                self._leads_group = True
                return pid
        return os.posix_spawnp(command[0], command, os.environ, setsigdef=default)

    def _watch(self, wakeup: int, floor_bytes: int) -> None:
        poll = select.poll()
        poll.register(self._lifeline, select.POLLIN)
        poll.register(wakeup, select.POLLIN)
        while True:
            ready = dict(poll.poll(self._wait_s() * 1000))
            if wakeup in ready:
                os.read(wakeup, 4096)
            if self._lifeline in ready:
                if os.read(self._lifeline, 1) != LEAVE:
                    self._end_tree()
                return
            if os.getppid() != self._orders.caller:
                self._end_tree()
                return
            self._reap(floor_bytes)
            if not self._told:
                self._keep_limits()

    def _wait_s(self) -> float:
        if self._told:
            return CALLER_S
        next_s = min(self._deadline_s, self._next_check_s if self._is_limited() else float("inf"))
        return max(0.0, min(CALLER_S, next_s - time.monotonic()))

    def _is_limited(self) -> bool:
        return self._orders.limit_bytes is not None and not self._reason

    def _reap(self, floor_bytes: int) -> None:
        """Waits for every child that has ended: the command, and orphans that came to this subreaper."""
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
                if not pid:
                    return
                if pid == self._pid:
                    self._told = True
                    largest_bytes = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
                    self._send(
                        Message(
                            "ended",
                            pid=pid,
                            status=status,
                            reason=self._reason,
                            reached_bytes=self._reached_bytes,
                            largest_bytes=largest_bytes,
                            floor_bytes=floor_bytes,
                        )
                    )

    def _keep_limits(self) -> None:
        now_s = time.monotonic()
        if now_s >= self._deadline_s and not self._reason:
            self._reason, self._deadline_s = "timeout", float("inf")
            self._end_tree()
        elif self._is_limited() and now_s >= self._next_check_s:
            assert self._orders.limit_bytes is not None
            reached_bytes = proven_bytes(descendants(os.getpid()), self._orders.limit_bytes)
            cost_s = time.monotonic() - now_s
            self._next_check_s = now_s + max(CHECK_S, CHECK_REST * cost_s)
            if reached_bytes > self._orders.limit_bytes:
                self._reason, self._reached_bytes = "limit", reached_bytes
                self._end_tree()

    def _end_tree(self) -> None:
        """Kills all that is below this process, until nothing living is: a process may fork while it is looked up."""
        deadline_s = time.monotonic() + ENDING_S
        while living := [pid for pid in descendants(os.getpid()) if not _has_ended(pid)]:
            for pid in living:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            if time.monotonic() > deadline_s:  # one is in a system call that cannot be interrupted
                break
            time.sleep(0.001)
        if not self._told:  # where there is no /proc to find descendants in
            with contextlib.suppress(OSError):
                os.kill(self._pid, signal.SIGKILL)
        if self._leads_group:
            with contextlib.suppress(OSError):
                os.killpg(self._pid, signal.SIGKILL)

    def _send(self, message: Message) -> None:
        with contextlib.suppress(OSError):  # the caller is gone, which the lifeline says as well
            os.write(self._messages, encode(message))


def descendants(root: int) -> list[int]:
    """All processes below `root`; those that have ended and were not waited for included."""
    found = _children(root)
    for pid in found:  # grows while it is walked
        found += _children(pid)
    return found


def proven_bytes(pids: list[int], worth_bytes: int) -> int:
    """What these processes are proven to hold together, swapped-out memory included.

    The sum of resident sizes is an upper bound, cheap, and the answer while it is at most `worth_bytes`. Above that
    proportional sizes are summed, in which what several processes share counts once. They are not read at one instant:
    memory that one process gave up and another one took meanwhile would be in both, so the smaller of two readings counts.
    """
    most_bytes = sum(map(_resident_and_swapped_bytes, pids))
    if most_bytes <= worth_bytes:
        return most_bytes
    first = list(map(_proportional_bytes, pids))
    return sum(map(min, first, map(_proportional_bytes, pids)))


# A reader of /proc of its own, beside `measurement.process.proc`: to import that package takes longer than most commands run.


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            found += map(int, _read(f"/proc/{pid}/task/{thread}/children").split())
    return found


def _has_ended(pid: int) -> bool:
    stat = _read(f"/proc/{pid}/stat")
    return stat[stat.rfind(b")") + 2 :][:1] in {b"", b"Z", b"X"}


def _resident_and_swapped_bytes(pid: int) -> int:
    return _kilobytes(_read(f"/proc/{pid}/status"), b"\nVmRSS:", b"\nVmSwap:")


def _proportional_bytes(pid: int) -> int:
    return _kilobytes(_read(f"/proc/{pid}/smaps_rollup"), b"\nPss:", b"\nSwapPss:")


def _kilobytes(text: bytes, *fields: bytes) -> int:
    found = (text.partition(field)[2].split(None, 1) for field in fields)
    return sum(int(words[0]) * 1024 for words in found if words)


def _read(path: str) -> bytes:
    with contextlib.suppress(OSError), open(path, "rb", buffering=0) as stream:  # noqa: PTH123 - starts faster
        return stream.readall()  # the kernel gives 4 KiB at a time: the numbers of 680 children
    return b""


def _high_water_bytes() -> int:
    return _kilobytes(_read("/proc/self/status"), b"\nVmHWM:")


def _wakeup_at_child_end() -> int:
    """A descriptor that can be read when a child has ended."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    os.set_blocking(reading, False)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    return reading


def _become_subreaper() -> None:
    if sys.platform == "linux":
        with contextlib.suppress(ImportError, OSError, AttributeError):
            import ctypes

            ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


if __name__ == "__main__":
    Guard(int(sys.argv[1]), int(sys.argv[2]), Orders(**json.loads(sys.argv[3]))).run(sys.argv[4:])
