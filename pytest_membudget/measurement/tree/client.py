"""The measured process's end of one tree helper: started once, then spoken to through pipes and a note.

A reading of the whole tree comes from the helper (`tree.helper`). Most blocks start no process; then nothing is asked:
there is no child, none was waited for meanwhile, and the kernel's mark of this process is all. Such a block only leaves
a note, in case it starts one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from pytest_membudget.measurement.process import proc
from pytest_membudget.measurement.process.children import above_standard, pipe
from pytest_membudget.measurement.system.control_group import group_statistics
from pytest_membudget.measurement.tree.helper.messages import (
    Begin,
    Begun,
    End,
    Limits,
    Message,
    Quit,
    Ready,
    Summary,
    decode,
    encode,
)
from pytest_membudget.measurement.tree.helper.shared_memory import SharedReading
from pytest_membudget.measurement.tree.helper.shared_note import Note, NoteWriter, Start
from pytest_membudget.originals import (
    contextlib,
    json,
    os,
    select,
    signal,
    subprocess,
    sys,
    threading,
    time,
)

_Answer = TypeVar("_Answer", Ready, Begun, Summary)

ANSWER_S = 20.0
"""A helper that does not answer for so long is taken for dead (a machine under load may make it wait)."""

LAUNCH = "import sys; sys.path.append(sys.argv[1]); from helper import main; main.main(sys.argv[2:])"


_left_open: list[NoteWriter] = []
"""Of helpers whose descriptors code under test has closed: a mapping closes its own unasked, whatever the number means by then."""


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
        self._writer: NoteWriter | None = None
        self._identities: dict[int, tuple[int, int] | None] = {}
        self._hang_up = select.poll()
        try:
            theirs = self._open_pipes()
            self._hang_up.register(self._answers, 0)
            ready = self._launch(theirs)
        except SamplerLostError:
            self.forget()
            raise
        if ready.failure:
            self.forget()
            raise SamplerLostError(ready.failure)
        self.pid, self.members = ready.pid, ready.members
        self.hides_huge_pages = ready.hides_huge_pages
        self.reaped: object = None
        """`reaped()` when the tree was last known to be this process alone."""

    def is_alive(self) -> bool:
        """Whether the helper holds its end of the pipe (1 µs)."""
        return not self._hang_up.poll(0)

    def begin(
        self,
        *,
        shared: SharedReading | None = None,
        limits: Limits | None = None,
        interval_s: float | None = None,
    ) -> int:
        """Opens a measurement, and returns its key once the tree was read.

        Args:
            shared: the machine's shared memory at the start; without, what is added to it is not counted.
            limits: what the helper's watchdog keeps.
            interval_s: between two scans at rest.
        """
        with self._lock:
            self._keys += 1
            self._send(Begin(self._keys, interval_s, limits, shared=shared, answer=True))
            self.members = self._receive(Begun).members
            self._open.add(self._keys)
            return self._keys

    def begin_alone(
        self, start: Start, *, limits: Limits | None = None, interval_s: float | None = None
    ) -> int:
        """Opens a measurement of this process alone.

        The helper is not woken where no other measurement is open, and this one has neither limits nor an interval.

        Args:
            start: what this process was like when the block began.
            limits: what the helper's watchdog keeps.
            interval_s: between two scans at rest.
        """
        with self._lock:
            self._keys += 1
            if limits is None and interval_s is None and not self._open and self._writer is not None:
                self._writer.write(Note(self._keys, time.monotonic_ns(), start))
                self._open.add(self._keys)
                self._noted = self._keys
                return self._keys
            self._send(Begin(self._keys, interval_s, limits, start))
            self._open.add(self._keys)
            return self._keys

    def end(self, key: int) -> Summary:
        """Closes a measurement and returns what was found."""
        with self._lock:
            self._send(End(key, answer=True))
            try:
                found = self._receive(Summary)
            finally:
                self._leave(key)
            self.members = found.members
            return found

    def cancel(self, key: int) -> None:
        """Closes a measurement that needs no answer."""
        with self._lock:
            if key != self._noted:
                self._send(End(key))
            self._leave(key)

    def close(self) -> None:
        """Ends the helper."""
        with self._lock:
            with contextlib.suppress(SamplerLostError):
                self._send(Quit())
            self.forget()

    def forget(self) -> None:
        """Closes our ends of the pipes and the note, as far as they are still ours."""
        if self._writer is not None:
            if self._is_ours(self._note):
                self._writer.close()
            else:
                _left_open.append(self._writer)
            self._writer = None
        for name in ("_commands", "_answers", "events", "_note"):
            descriptor = getattr(self, name)
            if descriptor >= 0 and self._is_ours(descriptor):
                os.close(descriptor)
            setattr(self, name, -1)

    def _open_pipes(self) -> tuple[int, ...]:
        """The helper's ends: commands, answers, events, note; -1 for a note that a sandbox forbids."""
        theirs: list[int] = []
        try:
            their_commands, self._commands = pipe()
            theirs.append(their_commands)
            for name in ("_answers", "events"):
                our_end, their_end = pipe()
                setattr(self, name, our_end)
                theirs.append(their_end)
            with contextlib.suppress(OSError):  # without a note every block is announced
                self._note = above_standard(os.memfd_create("pytest-membudget"))
                self._writer = NoteWriter(self._note)
            theirs.append(-1 if self._note < 0 else above_standard(os.dup(self._note)))
        except OSError as error:  # a limit on descriptors
            _close(theirs)
            raise SamplerLostError(f"it could not be started ({error})") from error
        finally:
            ours = (self._commands, self._answers, self.events, self._note)
            self._identities = {descriptor: proc.identity(descriptor) for descriptor in ours}
        return tuple(theirs)

    def _launch(self, theirs: tuple[int, ...]) -> Ready:
        """Starts the helper by way of a process that ends before it speaks: no `wait` of the user's ever meets it."""
        words = [sys.executable, "-I", "-S", "-c", LAUNCH, str(Path(__file__).parent), str(self.root)]
        passed = [descriptor for descriptor in theirs if descriptor >= 0]
        options: dict[str, Any] = {"pass_fds": passed, "env": {}}
        options |= dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
        words += [*map(str, theirs), group_statistics()]
        try:
            try:
                process = subprocess.Popen(
                    words, start_new_session=True, **options
                )  # Ctrl-C is for the tests
            except PermissionError:  # a sandbox forbids setsid
                process = subprocess.Popen(words, **options)
        except (OSError, subprocess.SubprocessError) as error:
            raise SamplerLostError(f"it could not be started ({error})") from error
        finally:
            _close(passed)
        try:
            return self._receive(Ready)
        finally:
            process.kill()
            process.wait()

    def _leave(self, key: int) -> None:
        self._open.discard(key)
        if key == self._noted:
            self._noted = 0
            if self._writer is not None:
                self._writer.wipe()

    def _send(self, command: Message) -> None:
        if not self._is_ours(self._commands):
            raise SamplerLostError("its pipe was closed by the code under test")
        try:
            os.write(self._commands, encode(command, json.dumps))
        except OSError as error:
            raise SamplerLostError("it ended by itself or was killed") from error

    def _receive(self, kind: type[_Answer]) -> _Answer:
        poll = select.poll()
        if not self._is_ours(self._answers):
            raise SamplerLostError("its pipe was closed by the code under test")
        poll.register(self._answers, select.POLLIN)
        while b"\n" not in self._buffer:
            if not poll.poll(ANSWER_S * 1000):
                self._kill()
                raise SamplerLostError(f"it has not answered for {ANSWER_S:.0f} s")
            received = os.read(self._answers, 65536)
            if not received:
                raise SamplerLostError("it ended by itself or was killed")
            self._buffer += received
        line, _, self._buffer = self._buffer.partition(b"\n")
        answer = decode(line, json.loads)
        if not isinstance(answer, kind):
            raise SamplerLostError("it does not know this measurement")
        return answer

    def _kill(self) -> None:
        """Ends a helper that does not answer: stopped by a signal, it would stay for ever."""
        with contextlib.suppress(OSError, AttributeError):
            if LAUNCH.encode() in proc.read(
                self.pid, "cmdline"
            ):  # else another process has its number by now
                os.kill(self.pid, signal.SIGKILL)

    def _is_ours(self, descriptor: int) -> bool:
        """Code under test may close descriptors; a number that came to mean another file is left alone."""
        found = proc.identity(descriptor)
        return found is not None and found == self._identities[descriptor]


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
