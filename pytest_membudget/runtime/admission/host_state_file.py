"""The shared file, read and replaced under a lock that dies with its holder."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import random
import re
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from pytest_membudget.errors import UnreadableFileError
from pytest_membudget.measurement.process import proc
from pytest_membudget.records.storage import encoded, private_directory
from pytest_membudget.runtime.admission.host_ledger import HostState, Owner

LOCK_WAIT_S = 30.0
"""A holder needs well under a millisecond; one that takes longer than this has been stopped."""

_END = b"\n"
"""Ends the file and is nowhere else in it."""

_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_NONBLOCK = getattr(os, "O_NONBLOCK", 0)
_held: set[int] = set()
"""Descriptors of locks that this process holds now."""


class HostStateFile:
    """The file of one name, or of one lease inside it; a `transaction` is alone with it.

    It is replaced as a whole: a program killed at any instant leaves the old state or the new one, and `peek` needs
    no lock.
    """

    def __init__(self, name: str, directory: Path | None = None, *, lease_ids: tuple[str, ...] = ()) -> None:
        folder = private_directory(directory or host_directory())
        space = process_namespace()
        stem = ".".join([f"{_file_name(name)}-{space}" if space else _file_name(name), *lease_ids])
        self._name = name
        self._lease_ids = lease_ids
        self.path = folder / f"{stem}.json"
        self._lock_path = folder / f"{stem}.lock"
        self._new_path = folder / f"{stem}.new"

    def within(self, lease_id: str) -> HostStateFile:
        """The file of the budget that one lease of this budget is: for the programs that were started inside it."""
        return HostStateFile(self._name, self.path.parent, lease_ids=(*self._lease_ids, _file_name(lease_id)))

    def remove_lease_files(self, lease_id: str) -> None:
        """Removes the budgets inside a lease that is no more, and those inside them."""
        for path in self.path.parent.glob(f"{self.path.stem}.{_file_name(lease_id)}.*"):
            with contextlib.suppress(OSError):
                path.unlink()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[HostState]:
        """The state, for changing it in place; written back unless the block raises.

        Raises:
            TimeoutError: another program has held the lock for half a minute.
            UnreadableFileError: the file is not of the expected shape, or something else has its place.
            OSError: it cannot be written, as on a full disk; the old state is kept.
        """
        with _locked(self._lock_path):
            before = self._read()
            state = self._decode(before)
            yield state
            after = encoded(state) + _END
            if after != before:
                self._replace(after)

    def peek(self) -> HostState:
        """The state as it was last written, to be read only."""
        if sys.platform == "win32":  # a file that is being read cannot be removed there
            with _locked(self._lock_path):
                return self._decode(self._read())
        return self._decode(self._read())

    def signature(self) -> tuple[int, int, int]:
        """Differs, nearly always, once the file has been replaced; cheap."""
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return (0, 0, 0)
        return (found.st_ino, found.st_mtime_ns, found.st_size)

    def _read(self) -> bytes:
        """What was written last. Between unlink and rename that is in the new file, if it ends as it should."""
        for path in (self.path, self._new_path, self.path):
            content = _content(path)
            if content.endswith(_END) or (content and path == self.path):
                return content
        return b""

    def _decode(self, content: bytes) -> HostState:
        boot = boot_id()
        if not content.strip(b"\0"):  # new, or cut short when the machine went down
            return HostState(boot_id=boot)
        try:
            state = msgspec.json.decode(content, type=HostState)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            found = "nested too deep" if isinstance(error, RecursionError) else str(error)
            raise UnreadableFileError(
                f"{self.path} is not a host ledger of this version: {found}; "
                "remove it when no program that shares this budget runs"
            ) from None
        return state if state.boot_id == boot else HostState(boot_id=boot)

    def _replace(self, content: bytes) -> None:
        # Not forced to disk: after a reboot it holds for no process.
        descriptor = _open_plain(self._new_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(content)
        except OSError as error:  # a write does not know the name of its file
            raise OSError(error.errno, error.strerror, str(self._new_path)) from None
        # Some file systems write a file out to disk when it replaces another: milliseconds for each decision.
        self.path.unlink(missing_ok=True)
        self._new_path.rename(self.path)


def _open_plain(path: Path, flags: int) -> int:
    """A descriptor of a plain file; anything else that has its place is refused, and waits for no other end of a pipe."""
    try:
        descriptor = os.open(path, flags | _NOFOLLOW | _NONBLOCK, 0o600)
    except (IsADirectoryError, PermissionError) as error:
        # Also Windows' answer to a directory.
        raise _in_the_way(path) if path.is_dir() else error from None
    except OSError as error:
        raise _in_the_way(path) if error.errno == errno.ENXIO else error from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _in_the_way(path)
    return descriptor


def _in_the_way(path: Path) -> UnreadableFileError:
    return UnreadableFileError(
        f"{path} is not a plain file, but the host's budget is kept there; remove it, or name another folder in "
        "MEMBUDGET_HOST_DIRECTORY"
    )


def _content(path: Path) -> bytes:
    try:
        descriptor = _open_plain(path, os.O_RDONLY)
    except FileNotFoundError:
        return b""
    with os.fdopen(descriptor, "rb") as stream:
        return stream.read()


def host_directory() -> Path:
    """Where a user's programs meet: below XDG_RUNTIME_DIR, else below the directory for temporary files.

    MEMBUDGET_HOST_DIRECTORY names another place, for programs that see different ones.
    """
    named = os.environ.get("MEMBUDGET_HOST_DIRECTORY")
    if named:
        return Path(named)
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and os.access(runtime, os.W_OK):  # a changed user may have kept another user's
        return Path(runtime) / "pytest-membudget"
    user = f"-{os.getuid()}" if hasattr(os, "getuid") else ""
    return Path(tempfile.gettempdir()) / f"pytest-membudget{user}"


def _file_name(name: str) -> str:
    """`name` where it is a plain word, else its plain characters and a digest that separates it from names alike."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", name)[:40]
    if plain == name:
        return name
    return f"{plain}.{hashlib.sha256(name.encode(errors='surrogatepass')).hexdigest()[:16]}"


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    deadline_s = time.monotonic() + LOCK_WAIT_S
    while True:
        descriptor = _open_plain(path, os.O_RDWR | os.O_CREAT)
        _held.add(descriptor)
        try:
            _wait_for_lock(descriptor, path, deadline_s)
            if _is_still(path, descriptor):
                yield
                return
        finally:
            # Unlocked by name, not only by closing: a child forked meanwhile has the descriptor as well.
            _unlock(descriptor)
            _held.discard(descriptor)
            os.close(descriptor)


def _wait_for_lock(descriptor: int, path: Path, deadline_s: float) -> None:
    while not _try_lock(descriptor):
        if time.monotonic() > deadline_s:
            raise TimeoutError(
                f"{path} has been locked for {LOCK_WAIT_S:g} s; a program that shares this budget seems to be "
                "stopped: continue it or end it"
            )
        time.sleep(random.uniform(0.0002, 0.002))


def _is_still(path: Path, descriptor: int) -> bool:
    """Whether the locked file is the one that others will find; a cleaner may have removed it."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


if sys.platform == "win32":
    import msvcrt

    def _try_lock(descriptor: int) -> bool:
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _unlock(descriptor: int) -> None:
        with contextlib.suppress(OSError):
            msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _try_lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _unlock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


def _close_in_child() -> None:
    """A forked child must not keep the lock of a parent that is killed while it holds it."""
    for descriptor in _held:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)


def this_process() -> Owner:
    """The calling process, also just after a fork."""
    pid = os.getpid()
    return Owner(pid, _started(pid) or 0.0)


def is_alive(owner: Owner) -> bool:
    """Whether that very process still runs. One that has ended but was not waited for holds no memory any more."""
    return _started(owner.pid) == owner.started


def boot_id() -> str:
    """Differs from boot to boot; empty where start times are absolute, so that none is needed."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def process_namespace() -> str:
    """Processes of another namespace (a container) have ids that mean nothing here; empty where there is only one."""
    try:
        return "".join(character for character in os.readlink("/proc/self/ns/pid") if character.isdigit())  # noqa: PTH115 - not a path
    except OSError:
        return ""


def _started(pid: int) -> float | None:
    """When the process started; `None` where there is none, or only what is left of one."""
    if sys.platform != "linux":
        return _started_by_psutil(pid)
    status = proc.stat(pid)
    return None if status is None or status.has_ended else float(status.started)


def _started_by_psutil(pid: int) -> float | None:
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else float(process.create_time())
    except psutil.NoSuchProcess:
        return None
    except psutil.AccessDenied:
        return None  # another user's: not one of ours
