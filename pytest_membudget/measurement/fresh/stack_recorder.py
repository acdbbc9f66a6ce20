"""Records who allocates in this process and in the Python processes below it, for a comparison of two revisions.

Loaded in every interpreter of such a run (by `sitecustomize`), it records at once in those that the test starts, and in
the process of the test inside `recording_test`. Forks get a recording of their own: what memray itself writes for a fork is lost
where that ends by `os._exit`, as those of multiprocessing do. A process that is killed leaves no recording.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

#: The folder that recordings go to. Set by what starts the run.
FOLDER = "PYTEST_MEMBUDGET_RECORD"
#: Set while the test runs: what is started meanwhile is recorded from its first instruction.
CHILDREN = "PYTEST_MEMBUDGET_RECORD_CHILDREN"

#: The recording of the test's own process; those of children have other names.
MAIN = "main.bin"


class Recorder:
    """The one recording of this process."""

    def __init__(self) -> None:
        self._tracker: Any = None
        self._is_watching_forks = False

    def start(self, name: str) -> None:
        """Begins to record into the file `name`; nothing happens where memray is missing or at work already."""
        try:
            import memray
        except ImportError:
            return  # another interpreter than ours
        destination = memray.FileDestination(Path(os.environ[FOLDER], name), overwrite=True)
        tracker = memray.Tracker(
            destination=destination,
            native_traces=True,
            # Otherwise small objects are seen only where they happen to need a new arena.
            trace_python_allocators=True,
            file_format=memray.FileFormat.AGGREGATED_ALLOCATIONS,
        )
        try:
            tracker.__enter__()
        except (RuntimeError, AssertionError):
            return
        self._tracker = tracker
        if not self._is_watching_forks:
            self._is_watching_forks = True
            os.register_at_fork(after_in_child=self._follow)

    def stop(self) -> None:
        """Writes the recording."""
        tracker, self._tracker = self._tracker, None
        if tracker is not None:
            tracker.__exit__(None, None, None)

    def _follow(self) -> None:
        """In a fork: the parent's recording is not ours to end."""
        if self._tracker is None:
            return
        self._tracker = None
        # memray 1.15 to 1.20 puts these on the class while it records, and a fork does not take them away.
        for name in ("_name", "_ident"):
            with contextlib.suppress(AttributeError):
                delattr(threading.Thread, name)
        self.start(f"child-{os.getpid()}.bin")
        end = os._exit

        def stop_and_exit(status: int) -> Any:
            self.stop()
            end(status)

        os._exit = stop_and_exit


RECORDER = Recorder()


def folder_of(folder: Path, nodeid: str) -> Path:
    """Where the recordings of one test go."""
    return folder / hashlib.sha256(nodeid.encode("utf-8", "backslashreplace")).hexdigest()[:16]


@contextlib.contextmanager
def recording_test(nodeid: str) -> Iterator[None]:
    """Records this process, and what it starts meanwhile."""
    outer = os.environ[FOLDER]
    own = folder_of(Path(outer), nodeid)
    own.mkdir(exist_ok=True)
    os.environ.update({FOLDER: str(own), CHILDREN: "1"})
    RECORDER.start(MAIN)
    try:
        yield
    finally:
        RECORDER.stop()
        os.environ.pop(CHILDREN, None)
        os.environ[FOLDER] = outer


if CHILDREN in os.environ and FOLDER in os.environ:
    RECORDER.start(f"child-{os.getpid()}.bin")
    atexit.register(RECORDER.stop)
