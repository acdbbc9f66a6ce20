"""The one launcher of fresh interpreters and commands: start, lifeline, limits on the whole tree, how it ended.

```python
ending = run(["make", "-j8"], limit_bytes=8 * GIB, timeout_s=3600)     # waits; stdin, stdout and stderr are this process's
with launch([sys.executable, "job.py"], stdout=log, own_session=True) as job:
    job.send_something(); ending = job.wait()                          # or job.poll(0.1), None while it runs
```
A small guard (`guard`) stands between this process and the command. It ends the command with everything that this started
when the `with` block ends, when a limit is broken, and when this process is gone, SIGKILL included. On Linux nothing escapes
it: neither a double fork nor a session of its own. On macOS what leaves the command's process group does, and on Windows,
where there is no guard, children do.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from pytest_membudget.errors import MeasurementError, UsageError
from pytest_membudget.measurement.fresh import guard
from pytest_membudget.measurement.fresh.guard import Message, Orders
from pytest_membudget.measurement.process.children import descendants, pipe, tree_resident_bytes
from pytest_membudget.records.measurement import NOT_FOUND, NOT_RUNNABLE, SIGNALLED, Ending, How, exit_code_of

Output = int | IO[Any] | None
"""As `subprocess` takes it: a descriptor, a file, `subprocess.DEVNULL`, or `None` for this process's own."""

POLL_S = 0.02
LONGEST_TIMEOUT_S = 1e9
"""Thirty years: more is no limit, and too much for a timer of the kernel's."""
GUARD_ENDING_S = 10.0
"""A guard kills a tree within milliseconds; one that has not ended for so long is stopped, and killed itself."""


class Launched:
    """A command that was started by `launch`."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        lifeline: int = -1,
        messages: int = -1,
        *,
        limit_bytes: int | None = None,
        timeout_s: float | None = None,
    ) -> None:
        self._process = process
        self._lifeline = lifeline
        self._messages = messages
        self._buffer = b""
        self._limit_bytes = limit_bytes
        self._timeout_s = timeout_s
        self._start_s = time.monotonic()
        self._command_pid = 0
        self._ending: Ending | None = None
        self.largest_bytes = 0
        """`ru_maxrss` of the command, once it has ended: its largest process, but never less than `floor_bytes`."""
        self.floor_bytes = 0

    @property
    def root(self) -> int:
        """The root of the tree: the guard, which is not part of what is measured; on Windows the command itself."""
        return self._process.pid

    def start(self) -> None:
        """Starts a command that was launched with `held=True`."""
        self._start_s = time.monotonic()
        if self._lifeline >= 0:
            with contextlib.suppress(OSError):  # the guard is gone, which `poll` finds out
                os.write(self._lifeline, guard.START)

    def poll(self, wait_s: float | None = 0.0) -> Ending | None:
        """How it ended; `None` where it still runs after `wait_s` seconds (`None`: for as long as it takes)."""
        deadline_s = None if wait_s is None else time.monotonic() + wait_s
        while self._ending is None:
            left_s = None if deadline_s is None else max(0.0, deadline_s - time.monotonic())
            if not (self._receive(left_s) if self._messages >= 0 else self._poll_directly(left_s)):
                break
        return self._ending

    def wait(self, *, passthrough: bool = False) -> Ending:
        """Waits for the end.

        Args:
            passthrough: signals that are sent to this process reach the command instead, as if it were in its place. Of
                those that a terminal sends to all its processes the command has its own. For the main thread only.
        """
        if passthrough and self._messages >= 0 and hasattr(signal, "sigtimedwait"):
            return self._wait_as_the_command()
        ending = self.poll(None)
        assert ending is not None
        return ending

    def cancel(self) -> Ending:
        """Ends the command with all that it started."""
        if self.poll() is None:
            self._end_tree()
            self._finish("cancelled", signal.SIGKILL if sys.platform != "win32" else 0)
        assert self._ending is not None
        return self._ending

    def close(self, *, keep_rest: bool = False) -> None:
        """Ends what is left of the tree, or with `keep_rest` leaves what outlives the command."""
        if self._lifeline >= 0:
            if keep_rest and self._ending is not None:
                with contextlib.suppress(OSError):
                    os.write(self._lifeline, guard.LEAVE)
            self._close_lifeline()
        self._end_guard()
        if self._messages >= 0:
            os.close(self._messages)
            self._messages = -1

    def _end_tree(self) -> None:
        if self._lifeline >= 0:
            self._close_lifeline()
            self._end_guard()
        else:
            self._process.kill()
            self._process.wait()

    def _close_lifeline(self) -> None:
        os.close(self._lifeline)
        self._lifeline = -1

    def _end_guard(self) -> None:
        try:
            self._process.wait(GUARD_ENDING_S if self._messages >= 0 else 0)
        except subprocess.TimeoutExpired:
            for pid in [*descendants(self.root), self.root]:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL)
            self._process.wait()

    def _receive(self, wait_s: float | None) -> bool:
        """Takes the guard's next message; False where none comes in time."""
        poll = select.poll()  # unlike select, at home with any number of descriptors
        poll.register(self._messages, select.POLLIN)
        if not poll.poll(None if wait_s is None else wait_s * 1000):
            return False
        received = os.read(self._messages, 4096)
        if not received:
            self._lose()
            return True
        *lines, self._buffer = (self._buffer + received).split(b"\n")
        for line in lines:
            self._received(Message(**json.loads(line)))
        return True

    def _received(self, message: Message) -> None:
        if message.kind == "started":
            self._command_pid = message.pid
        elif message.kind == "refused":
            missing = message.errno in {errno.ENOENT, errno.ENOTDIR}
            self._finish(
                "not-found" if missing else "not-runnable", 0, NOT_FOUND if missing else NOT_RUNNABLE
            )
        elif message.kind == "ended":
            self.largest_bytes, self.floor_bytes = message.largest_bytes, message.floor_bytes
            number = os.WTERMSIG(message.status) if os.WIFSIGNALED(message.status) else 0
            code = exit_code_of(os.waitstatus_to_exitcode(message.status))
            reasons: Mapping[str, How] = {"limit": "over-limit", "timeout": "timeout"}
            how: How = reasons.get(message.reason, "signalled" if number else "exited")
            self._finish(how, number, code, message.reached_bytes)

    def _finish(self, how: How, number: int, exit_code: int | None = None, reached_bytes: int = 0) -> None:
        self._ending = Ending(
            how=how,
            exit_code=SIGNALLED + number if exit_code is None else exit_code,
            signal=number,
            duration_s=time.monotonic() - self._start_s,
            limit_bytes=self._limit_bytes,
            reached_bytes=reached_bytes,
            timeout_s=self._timeout_s,
        )

    def _lose(self) -> None:
        """The guard was killed: what it watched is ended as far as it can still be found."""
        found = [self._command_pid, *descendants(self._command_pid)] if self._command_pid else []
        for pid in [*found, *_session(self.root)]:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        self._finish("lost", signal.SIGKILL)

    def _poll_directly(self, wait_s: float | None) -> bool:
        """Where there is no guard: waits a little, and keeps the limits from here; False where no time is left."""
        code = None
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = self._process.wait(POLL_S if wait_s is None else min(POLL_S, wait_s))
        if code is not None:
            self._finish("exited" if code >= 0 else "signalled", max(0, -code), exit_code_of(code))
            return True
        reached_bytes = 0 if self._limit_bytes is None else tree_resident_bytes(self.root)
        over = self._limit_bytes is not None and reached_bytes > self._limit_bytes
        late = self._timeout_s is not None and time.monotonic() - self._start_s > self._timeout_s
        if over or late:
            self._end_tree()
            self._finish("over-limit" if over else "timeout", 0, 1, reached_bytes)
        return wait_s is None or wait_s > 0

    def _wait_as_the_command(self) -> Ending:
        passed = {
            signal.SIGINT,
            signal.SIGQUIT,
            signal.SIGTERM,
            signal.SIGHUP,
            signal.SIGUSR1,
            signal.SIGUSR2,
        }
        before = signal.pthread_sigmask(signal.SIG_BLOCK, passed)
        to_pass: list[
            int
        ] = []  # one that comes before the guard has sent the command's number is kept until then
        try:
            while (ending := self.poll(POLL_S)) is None:
                while (caught := signal.sigtimedwait(passed, 0)) is not None:
                    # A positive code is the kernel's: a terminal has sent it to the command as well.
                    if caught.si_code <= 0:
                        to_pass.append(caught.si_signo)
                while to_pass and self._command_pid:
                    with contextlib.suppress(OSError):
                        os.kill(self._command_pid, to_pass.pop(0))
            return ending
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def launch(
    command: Sequence[str | os.PathLike[str]],
    *,
    cwd: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
    stdin: Output = None,
    stdout: Output = None,
    stderr: Output = None,
    pass_fds: Sequence[int] = (),
    limit_bytes: int | None = None,
    timeout_s: float | None = None,
    own_session: bool = True,
    held: bool = False,
    keep_rest: bool = False,
) -> Iterator[Launched]:
    """Starts a command; at the end of the block it has ended, with all that it started.

    Args:
        command: the program and its arguments; a program without a slash is searched for in `PATH`.
        cwd: where it runs, and `env` what its environment is; by default as here.
        env: see `cwd`.
        stdin: where it reads from, and `stdout` and `stderr` where it writes to; by default as here.
        stdout: see `stdin`.
        stderr: see `stdin`.
        pass_fds: descriptors that stay open in it.
        limit_bytes: the most that its whole tree may hold, swapped-out memory included and shared memory counted once.
            Checked every 10 ms or so; the tree is then killed.
        timeout_s: the most that it may take.
        own_session: False to leave it in this process's group and at its terminal.
        held: True to start the command by `Launched.start` only, when it is watched.
        keep_rest: True to let go on what outlives the command, if that ended by itself.

    Raises:
        UsageError: there is no command, or a limit is no number above 0.
        MeasurementError: nothing can be started here, for want of processes or descriptors.
    """
    words = checked_command(command, limit_bytes=limit_bytes, timeout_s=timeout_s)
    options: dict[str, Any] = {"cwd": cwd, "env": env, "stdin": stdin, "stdout": stdout, "stderr": stderr}
    try:
        if sys.platform == "win32":
            launched = Launched(
                subprocess.Popen(words, **options), limit_bytes=limit_bytes, timeout_s=timeout_s
            )
        else:
            orders = Orders(os.getpid(), limit_bytes, timeout_s, own_session)
            launched = _guarded(words, orders, pass_fds, options)
    except (OSError, subprocess.SubprocessError) as error:
        raise MeasurementError(f"{words[0]} could not be started: {error}") from error
    try:
        if not held:
            launched.start()
        yield launched
    finally:
        ending = launched.poll()
        launched.close(keep_rest=keep_rest and ending is not None and not ending.ended_by_us)


def run(command: Sequence[str | os.PathLike[str]], **options: Any) -> Ending:
    """Runs a command to its end; the options are those of `launch`."""
    with launch(command, **options) as launched:
        return launched.wait()


def checked_command(
    command: Sequence[str | os.PathLike[str]],
    *,
    limit_bytes: int | None = None,
    timeout_s: float | None = None,
) -> list[str]:
    """The words of a command, after a check of what it may take.

    Raises:
        UsageError: there is no command, or a limit is no number above 0.
    """
    words = [os.fspath(word) for word in command]
    if not words or not words[0]:
        raise UsageError(
            'there is no command to run, or its name is empty; on a command line it comes after "--"'
        )
    if any("\0" in word for word in words):
        raise UsageError("a command cannot hold a NUL character")
    if limit_bytes is not None and limit_bytes <= 0:
        raise UsageError(f"the limit is {limit_bytes} bytes; it must be above 0")
    if timeout_s is not None and not 0 < timeout_s < LONGEST_TIMEOUT_S:
        raise UsageError(
            f"the time limit is {timeout_s:g} s; it must be above 0 and below {LONGEST_TIMEOUT_S:g}, leave it out for none"
        )
    return words


def _guarded(
    words: list[str], orders: Orders, pass_fds: Sequence[int], options: Mapping[str, Any]
) -> Launched:
    their_lifeline, lifeline = pipe()
    messages, their_messages = pipe()
    script = str(Path(guard.__file__))
    asked = guard.encode(orders).decode().strip()
    try:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", script, str(their_lifeline), str(their_messages), asked, *words],
            pass_fds=(their_lifeline, their_messages, *pass_fds),
            **options,
        )
    except BaseException:
        os.close(lifeline)
        os.close(messages)
        raise
    finally:
        os.close(their_lifeline)
        os.close(their_messages)
    return Launched(process, lifeline, messages, limit_bytes=orders.limit_bytes, timeout_s=orders.timeout_s)


def _session(leader: int) -> list[int]:
    """The processes of a session whose leader, the guard, may be gone (1 ms)."""
    import psutil

    found = []
    for pid in psutil.pids():
        with contextlib.suppress(OSError):
            if os.getsid(pid) == leader:
                found.append(pid)
    return found
