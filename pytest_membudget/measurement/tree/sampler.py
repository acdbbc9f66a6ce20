"""The measured process's end of the tree helper, which is spoken to through pipes and a note.

A reading of the whole tree comes from the helper (`tree.helper`). Most blocks start no process; then nothing is asked:
there is no child, none was waited for meanwhile, and the kernel's mark of this process is all. Such a block only writes
a note, in case it starts one.

A process has one helper (`sampler`): started when first asked for, replaced once if it dies. `why_not` says why there is none.
"""

from __future__ import annotations

import atexit
from pathlib import Path
from typing import Any, TypeVar

from pytest_membudget.measurement.process import high_water, proc
from pytest_membudget.measurement.process.children import Reaped, above_standard, pipe
from pytest_membudget.measurement.system.control_group import group_statistics
from pytest_membudget.measurement.tree.helper.messages import (
    Begin,
    Begun,
    End,
    Limits,
    Message,
    Note,
    NoteWriter,
    Quit,
    Ready,
    Start,
    Summary,
    decode,
    encode,
)
from pytest_membudget.measurement.tree.helper.shared_memory import SharedReading
from pytest_membudget.originals import (
    contextlib,
    json,
    logging,
    os,
    restored,
    select,
    signal,
    subprocess,
    sys,
    threading,
    time,
)
from pytest_membudget.records.measurement import Caveat

RESTARTS = 1
ANSWER_S = 20.0
"""A helper that does not answer for so long is taken for dead (a machine under load may make it wait)."""

LAUNCH = (
    "import posix, sys; starter = posix.getpid(); posix.fork() and posix._exit(0); "
    "sys.path.append(sys.argv[1]); from helper import main; main.main(starter, sys.argv[2:])"
)
"""The process that we start ends before the helper imports anything: no `wait` of the user's ever meets the helper."""


_logger = logging.getLogger("pytest_membudget")


_Answer = TypeVar("_Answer", Ready, Begun, Summary)


_left_open: list[NoteWriter] = []
"""Of helpers whose descriptors code under test has closed: a mapping closes its own unasked, whatever the number means by then."""


class SamplerLostError(Exception):
    """The helper is gone; the message says how that was noticed."""


class TreeSampler:
    """One helper process and the pipes to it.

    Args:
        root: the process whose tree is watched; this one by default.
        waits: until the helper is ready; else `wait_until_ready` has to be called before all other methods but `close`.

    Raises:
        SamplerLostError: it cannot be started, and by every method once it is gone.
    """

    def __init__(self, root: int | None = None, *, waits: bool = True) -> None:
        self._lock = threading.Lock()
        self._keys = self._noted = 0
        self._open: set[int] = set()
        self._buffer = b""
        self.root = os.getpid() if root is None else root
        self._commands, self._answers, self.events, self._note = -1, -1, -1, -1
        self._starter: Any = None
        self._writer: NoteWriter | None = None
        self._identities: dict[int, tuple[int, int] | None] = {}
        self._hang_up = select.poll()
        try:
            theirs = self._open_pipes()
            self._hang_up.register(self._answers, 0)
            self._starter = self._launch(theirs)
        except SamplerLostError:
            self.forget()
            raise
        self.pid, self.members, self.hides_huge_pages = 0, 0, False
        self.reaped: Reaped | None = None
        """`reaped()` when the tree was last known to be this process alone."""
        if waits:
            self.wait_until_ready()

    def wait_until_ready(self) -> None:
        """Waits until the helper has read the tree, where it has not been waited for before."""
        if self._starter is None:
            return
        try:
            ready = self._receive(Ready)
        except SamplerLostError as error:
            ready = Ready(failure=str(error))
        finally:
            self._end_starter()
        if ready.failure:
            self.forget()
            raise SamplerLostError(ready.failure)
        self.pid, self.members = ready.pid, ready.members
        self.hides_huge_pages = ready.hides_huge_pages

    @property
    def is_starting(self) -> bool:
        """Whether it has not been waited for yet."""
        return self._starter is not None

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
                self._closed(key)
            self.members = found.members
            return found

    def cancel(self, key: int) -> None:
        """Closes a measurement that needs no answer."""
        with self._lock:
            if key != self._noted:
                self._send(End(key))
            self._closed(key)

    def close(self) -> None:
        """Ends the helper."""
        with self._lock:
            with contextlib.suppress(SamplerLostError):
                self._send(Quit())
            self._end_starter()
            self.forget()

    def forget(self) -> None:
        """Closes our ends of the pipes and the note, as far as they are still ours."""
        if self._starter is not None:
            self._starter.returncode = 0  # in a forked child it is no child of ours
            self._starter = None
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

    def _launch(self, theirs: tuple[int, ...]) -> Any:
        """Starts the process that starts the helper and ends."""
        words = [sys.executable, "-I", "-S", "-c", LAUNCH, str(Path(__file__).parent), str(self.root)]
        passed = [descriptor for descriptor in theirs if descriptor >= 0]
        options: dict[str, Any] = {"pass_fds": passed, "env": {}}
        options |= dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
        words += [*map(str, theirs), group_statistics()]
        try:
            try:
                return subprocess.Popen(words, start_new_session=True, **options)  # Ctrl-C is for the tests
            except PermissionError:  # a sandbox forbids setsid
                return subprocess.Popen(words, **options)
        except (OSError, subprocess.SubprocessError) as error:
            raise SamplerLostError(f"it could not be started ({error})") from error
        finally:
            _close(passed)

    def _end_starter(self) -> None:
        starter, self._starter = self._starter, None
        if starter is not None:
            starter.kill()
            starter.wait()

    def _closed(self, key: int) -> None:
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
            # Where this is not its command, another process has its number by now.
            if LAUNCH.encode() in proc.read(self.pid, "cmdline"):
                os.kill(self.pid, signal.SIGKILL)

    def _is_ours(self, descriptor: int) -> bool:
        """Code under test may close descriptors; a number that came to mean another file is left alone."""
        found = proc.identity(descriptor)
        return found is not None and found == self._identities[descriptor]


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


class _Keeper:
    """The one helper of this process, and why there is none."""

    def __init__(self) -> None:
        self.sampler: TreeSampler | None = None
        self.lost = 0
        self.reason = ""
        self.lock = threading.Lock()


_keeper = _Keeper()


def start_sampler() -> None:
    """Starts the helper and does not wait for it: it gets ready while this process does something else."""
    with _keeper.lock:
        if sys.platform == "linux" and _keeper.sampler is None:
            _start(waits=False)


def sampler() -> TreeSampler | None:
    """The helper, started when first asked for or dead; `None` where there can be none, for `why_not`."""
    helper = _keeper.sampler
    if helper is not None and not helper.is_starting and helper.is_alive():
        return helper
    if sys.platform != "linux":
        return None
    with _keeper.lock:
        helper = _keeper.sampler
        if helper is not None and not helper.is_starting and not helper.is_alive():
            _forget(SamplerLostError("it ended by itself or was killed"))
        if _keeper.sampler is None or _keeper.sampler.is_starting:
            _start(waits=True)
        return _keeper.sampler


def helper_pid() -> int:
    """The helper's process, which is no part of any tree; 0 where there is none. Starts none."""
    helper = _keeper.sampler
    return 0 if helper is None else helper.pid


def is_starting() -> bool:
    """Whether a helper is being started, or searched for, just now."""
    return _keeper.lock.locked()


def report_loss(lost: TreeSampler, error: SamplerLostError) -> Caveat:
    """Records that `lost` is gone; the next measurement starts another one, once. Returns the doubt about this one."""
    with _keeper.lock:
        if _keeper.sampler is lost:
            _forget(error)
    return Caveat("helper-lost", detail=str(error))


def why_not() -> str:
    """Why there is no helper, as a sentence; empty while there is one or none was needed."""
    if sys.platform != "linux":
        return "process trees are followed exactly on Linux only"
    return _keeper.reason if _keeper.sampler is None else ""


def close_sampler() -> None:
    """Ends the helper and closes what is kept open; a later measurement starts another."""
    high_water.close_files()
    with _keeper.lock:
        if _keeper.sampler is not None:
            _keeper.sampler.close()
            _keeper.sampler = None


def _start(*, waits: bool) -> None:
    """Starts the helper where there is none yet, and waits for it where that is asked for."""
    try:
        with restored():
            if _keeper.sampler is None and _keeper.lost <= RESTARTS:
                _keeper.sampler = TreeSampler(waits=False)
            if _keeper.sampler is not None and waits:
                _keeper.sampler.wait_until_ready()
    except SamplerLostError as error:
        _keeper.sampler = None
        _lost(error)


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
