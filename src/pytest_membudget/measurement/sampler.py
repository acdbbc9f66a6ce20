"""The measured process's end of the tree helper: started once, asked through pipes, replaced once if it dies.

A reading of the whole tree comes from the helper (`tree_helper`). Most blocks start no process; then nothing is asked:
there is no child, none was waited for meanwhile, and the kernel's mark of this process is all. Such a block only leaves
a note, in case it starts one.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from pytest_membudget.measurement.tree_helper.note import Note, Notepad

_logger = logging.getLogger("pytest_membudget")

WAIT_FOR_ALL_KINDS = 0x40000000
"""Linux's `__WALL`: children whose end sends no SIGCHLD count too."""

ANSWER_S = 20.0
"""A helper that does not answer for so long is taken for dead (a machine under load may make it wait)."""

LAUNCH = "import sys; sys.path.append(sys.argv[1]); from tree_helper import loop; loop.main(sys.argv[2:])"


class SamplerLostError(Exception):
    """The helper is gone; the message says how that was noticed."""


class TreeSampler:
    """One helper process and the pipes to it.

    Args:
        root: the process whose tree is watched; this one by default.

    Raises:
        SamplerLostError: it cannot be started, and by every method once it is gone.
    """

    def __init__(self, root: int | None = None) -> None:
        self._lock = threading.Lock()
        self._keys = self._noted = 0
        self._open: set[int] = set()
        self._buffer = b""
        self.root = os.getpid() if root is None else root
        self._commands, self._answers, self.events, self._note = -1, -1, -1, -1
        self._identities: dict[int, tuple[int, int]] = {}
        theirs = self._open_pipes()
        passed = [descriptor for descriptor in theirs if descriptor >= 0]
        try:
            self._launch(theirs, passed)
        except (OSError, subprocess.SubprocessError) as error:
            self.forget()
            raise SamplerLostError(f"it could not be started ({error})") from error
        finally:
            for descriptor in passed:
                os.close(descriptor)
        ready = self._receive()
        if "failed" in ready:
            self.forget()
            raise SamplerLostError(ready["failed"])
        self.pid: int = ready["ready"]
        self.members: int = ready["members"]
        self.reaped: object = None
        """`reaped()` when the tree was last known to be this process alone."""

    def is_alive(self) -> bool:
        """Whether the helper holds its end of the pipe (2 µs)."""
        poll = select.poll()
        poll.register(self._answers, 0)
        return self._is_ours(self._answers) and not poll.poll(0)

    def begin(self, **command: Any) -> int:
        """Opens a measurement and returns its key; with `answer=True` only once the tree was read."""
        with self._lock:
            self._keys += 1
            self._send({"do": "begin", "id": self._keys, **command})
            if command.get("answer"):
                self._count(self._receive())
            self._open.add(self._keys)
            return self._keys

    def begin_quietly(self, start_bytes: int, reaped_faults: int) -> int:
        """Opens a measurement of this process alone without waking the helper; the only one that is open then.

        Args:
            start_bytes: what this process held at the start.
            reaped_faults: the faults of dead children that were on its account then.
        """
        with self._lock:
            if not self._open and self._is_ours(self._note):
                self._keys += 1
                note = Note(self._keys, time.monotonic_ns(), start_bytes, reaped_faults)
                Notepad(self._note).write(note)
                self._open.add(self._keys)
                self._noted = self._keys
                return self._keys
        return self.begin(alone=start_bytes)

    def end(self, key: int) -> dict[str, Any]:
        """Closes a measurement and returns what was found."""
        with self._lock:
            self._send({"do": "end", "id": key, "answer": True})
            answer = self._receive()
            self._leave(key)
            if "unknown" in answer:
                raise SamplerLostError("it does not know this measurement")
            self._count(answer)
            return answer

    def cancel(self, key: int) -> None:
        """Closes a measurement that needs no answer."""
        with self._lock:
            if key != self._noted:
                self._send({"do": "end", "id": key})
            self._leave(key)

    def close(self) -> None:
        """Ends the helper."""
        with self._lock:
            with contextlib.suppress(SamplerLostError):
                self._send({"do": "quit"})
            self.forget()

    def forget(self) -> None:
        """Closes our ends of the pipes, as far as they are still ours."""
        for name in ("_commands", "_answers", "events", "_note"):
            descriptor = getattr(self, name)
            if descriptor >= 0 and self._is_ours(descriptor):
                os.close(descriptor)
            setattr(self, name, -1)

    def _open_pipes(self) -> tuple[int, int, int, int]:
        their_commands, self._commands = os.pipe()
        self._answers, their_answers = os.pipe()
        self.events, their_events = os.pipe()
        with contextlib.suppress(OSError):  # a sandbox may forbid it; then every block is announced
            self._note = os.memfd_create("pytest-membudget")
        for descriptor in (self._commands, self._answers, self.events, self._note):
            if descriptor < 0:
                continue
            status = os.fstat(descriptor)
            self._identities[descriptor] = (status.st_dev, status.st_ino)
        return their_commands, their_answers, their_events, os.dup(self._note) if self._note >= 0 else -1

    def _launch(self, theirs: tuple[int, ...], passed: list[int]) -> None:
        """Starts the helper by way of a process that ends at once: no `wait` of the user's ever meets it."""
        words = [sys.executable, "-I", "-S", "-c", LAUNCH, str(Path(__file__).parent), str(self.root)]
        subprocess.run(
            [*words, *map(str, theirs)],
            pass_fds=passed,
            start_new_session=True,  # Ctrl-C is for the tests
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={},
            timeout=ANSWER_S,
            check=True,
        )

    def _leave(self, key: int) -> None:
        self._open.discard(key)
        if key == self._noted:
            self._noted = 0
            if self._is_ours(self._note):
                Notepad(self._note).wipe()

    def _count(self, answer: dict[str, Any]) -> None:
        self.members = answer["members"]

    def _send(self, command: dict[str, Any]) -> None:
        if not self._is_ours(self._commands):
            raise SamplerLostError("its pipe was closed by the code under test")
        try:
            os.write(self._commands, json.dumps(command).encode() + b"\n")
        except OSError as error:
            raise SamplerLostError("it ended by itself or was killed") from error

    def _receive(self) -> dict[str, Any]:
        poll = select.poll()
        if not self._is_ours(self._answers):
            raise SamplerLostError("its pipe was closed by the code under test")
        poll.register(self._answers, select.POLLIN)
        while b"\n" not in self._buffer:
            if not poll.poll(ANSWER_S * 1000):
                raise SamplerLostError(f"it has not answered for {ANSWER_S:.0f} s")
            received = os.read(self._answers, 65536)
            if not received:
                raise SamplerLostError("it ended by itself or was killed")
            self._buffer += received
        line, _, self._buffer = self._buffer.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _is_ours(self, descriptor: int) -> bool:
        """Code under test may close descriptors; a number that came to mean another file is left alone."""
        try:
            status = os.fstat(descriptor)
        except OSError:
            return False
        return self._identities.get(descriptor) == (status.st_dev, status.st_ino)


class _Keeper:
    """The one helper of this process, and why there is none."""

    def __init__(self) -> None:
        self.sampler: TreeSampler | None = None
        self.lost = 0
        self.reason = ""
        self.lock = threading.Lock()


_keeper = _Keeper()

RESTARTS = 1


def sampler() -> TreeSampler | None:
    """The helper, started when first asked for or dead; `None` where there can be none, for `why_not`."""
    if sys.platform != "linux":
        return None
    with _keeper.lock:
        if _keeper.sampler is not None and not _keeper.sampler.is_alive():
            _forget(SamplerLostError("it ended by itself or was killed"))
        if _keeper.sampler is None and _keeper.lost <= RESTARTS:
            try:
                _keeper.sampler = TreeSampler()
            except SamplerLostError as error:
                _lost(error)
        return _keeper.sampler


def report_loss(lost: TreeSampler, error: SamplerLostError) -> str:
    """Notes that `lost` is gone; the next measurement starts another one, once. Returns the reason as a sentence."""
    with _keeper.lock:
        if _keeper.sampler is lost:
            _forget(error)
    return f"the helper process that watches children was lost: {error}"


def why_not() -> str:
    """Why there is no helper, as a sentence; empty while there is one or none was needed."""
    if sys.platform != "linux":
        return "process trees are followed exactly on Linux only"
    return _keeper.reason if _keeper.sampler is None else ""


def close_sampler() -> None:
    """Ends the helper; a later measurement starts a new one."""
    with _keeper.lock:
        if _keeper.sampler is not None:
            _keeper.sampler.close()
            _keeper.sampler = None


def reaped() -> object:
    """A figure that changes whenever a child of this process ends and is waited for, by anybody in it.

    Where nobody can be waited for, because SIGCHLD is ignored, it is new every time.
    """
    import resource

    if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        return object()
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (usage.ru_minflt, usage.ru_majflt, usage.ru_nvcsw, usage.ru_nivcsw, usage.ru_utime, usage.ru_stime)


def has_children() -> bool:
    """Whether this process has children now, of any thread and kind; none of them is waited for (1 µs)."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT | WAIT_FOR_ALL_KINDS)
    except ChildProcessError:
        return False
    except OSError:
        return True
    return True


def _forget(error: SamplerLostError) -> None:
    assert _keeper.sampler is not None
    _keeper.sampler.forget()
    _keeper.sampler = None
    _lost(error)


def _lost(error: SamplerLostError) -> None:
    _keeper.lost += 1
    again = "starting another one" if _keeper.lost <= RESTARTS else "sampling from inside from now on"
    _keeper.reason = f"the helper process that watches children was lost: {error}"
    _logger.warning("%s; %s", _keeper.reason, again)


def _forget_in_child() -> None:
    """A forked child has a helper of its own when it measures; this one belongs to its parent."""
    if _keeper.sampler is not None:
        _keeper.sampler.forget()
    _keeper.__init__()  # type: ignore[misc]


atexit.register(close_sampler)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
