"""Samples of one test module at the price of a fork: an interpreter that has collected it, and forks for each sample.

```text
session ── run_fresh's command ──▶ interpreter ── fork ──▶ fork server ── fork, for each sample ──▶ one pytest session
        ◀──────────── FIFOs and files in one folder ───────────▶
```
The interpreter starts as for any fresh run: pytest, the same plugins and conftest files, and the test's module. Then it forks
once, into a session of its own, and ends. What stays waits at a FIFO, so that between two samples the user's session has
neither a child nor a descriptor of ours, and no measured process tree contains it.

A sample finds what a fresh interpreter has when its first test begins, and its peak is the same:

- Anonymous memory is inherited page by page, free blocks of allocators included.
- Pages of files are not: `fork` leaves those mappings empty. `populate` maps what the server had mapped, or the code that a
  test runs would count as its memory a second time.
- Memory that a sample shares with the server halves its proportional size (PSS). So the figures of a test that starts
  processes do not agree, and its samples are not used.
- Hash seed and address layout are those of the server: samples of one server scatter less than fresh interpreters.

To fork is safe in a process of one thread only. Libraries that prepare for forks (OpenBLAS) end their threads at the first one,
so that is tried first. Where other threads stay (`_FORK_SAFE_THREADS` apart), or there are other processes, no server is left.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import select
import signal
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

from pytest_membudget.measurement.process import proc
from pytest_membudget.measurement.process.children import descendants
from pytest_membudget.plugin.fresh import FreshRequest, read_request

REQUESTS, ANSWERS, REQUEST_FILE = "requests", "answers", "request.json"
SAMPLE, QUIT = b"s", b"q"
"""Bytes on the FIFO of requests: run what the file says; end. An answer is one byte, when all has ended."""

_MADV_POPULATE_READ = 22  # Linux 5.14
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_PRESENT = 0x80
"""In the highest byte of an entry of /proc/self/pagemap: the page is in memory."""
_ENTRY_BYTES = 8  # of /proc/self/pagemap, for each page
_ENDING_S = 5.0  # more only where one is in a system call that cannot be interrupted
_FORK_SAFE_THREADS = frozenset({"jemalloc_bg_thd"})
"""jemalloc (in pyarrow, which pandas imports) holds its locks during a fork and goes on without this thread in the child."""
_TRIAL_S = 0.2
"""Threads that were joined before a fork are gone from /proc a moment later."""

Range = tuple[int, int]
"""First address and length, in bytes."""


def serve(folder: Path, caller: int) -> FreshRequest:
    """Leaves a server that forks for each request; returns in those forks alone, with the request of their sample.

    Args:
        folder: holds the FIFOs and the request.
        caller: the session that samples are taken for. The server ends with it.
    """
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        ranges = resident_file_ranges()
        populate(libc, ranges)
        if not _may_fork():
            os._exit(1)
        # Opened for writing as well, so that it never reports that the last writer is gone.
        requests = os.open(folder / REQUESTS, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        caller_end = os.pidfd_open(caller)
    except (
        OSError,
        AttributeError,
    ):  # an older kernel, or /proc is not readable: one interpreter a sample, then
        os._exit(1)
    if os.fork():
        os._exit(0)
    try:
        os.setsid()
        libc.prctl(
            _PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0
        )  # so that `descendants` finds all that a sample leaves
        _fork_for_each_request(folder, requests, caller_end, libc)
        populate(libc, ranges)
        return read_request(folder / REQUEST_FILE)
    except BaseException:
        os._exit(1)


def resident_file_ranges() -> list[Range]:
    """The pages of files, and of shared memory, that this process has mapped and touched; no range is of two mappings.

    Raises:
        OSError: this system has no /proc/self/pagemap.
    """
    found: list[Range] = []
    with open("/proc/self/pagemap", "rb", buffering=0) as pages:  # noqa: PTH123 - not a file
        for line in proc.read("self", "maps").splitlines():
            addresses, rights, _, _, inode = line.split(None, 5)[:5]
            if inode == b"0" or not rights.startswith(b"r"):
                continue
            first, end = (int(address, 16) for address in addresses.split(b"-"))
            entries = os.pread(
                pages.fileno(),
                (end - first) // proc.PAGE_BYTES * _ENTRY_BYTES,
                first // proc.PAGE_BYTES * _ENTRY_BYTES,
            )
            for number, top in enumerate(entries[_ENTRY_BYTES - 1 :: _ENTRY_BYTES]):
                address = first + number * proc.PAGE_BYTES
                if not top & _PRESENT:
                    continue
                if found and sum(found[-1]) == address > first:
                    found[-1] = (found[-1][0], found[-1][1] + proc.PAGE_BYTES)
                else:
                    found.append((address, proc.PAGE_BYTES))
    return found


def populate(libc: ctypes.CDLL, ranges: Sequence[Range]) -> None:
    """Maps those pages, none of which need be read from a disk. What is no longer mapped, or kept from forks, is left out.

    Raises:
        OSError: this kernel has no call for it.
    """
    for address, length in ranges:
        failed = libc.madvise(ctypes.c_void_p(address), ctypes.c_size_t(length), _MADV_POPULATE_READ)
        if failed and (number := ctypes.get_errno()) != errno.ENOMEM:
            raise OSError(number, os.strerror(number))


def _may_fork() -> bool:
    """Whether this process is alone below the guard that started it, with one thread."""
    if descendants(os.getppid()) != [os.getpid()]:
        return False
    if not _other_threads():
        return True
    with warnings.catch_warnings():  # Python 3.12 warns of threads
        warnings.simplefilter("ignore")
        child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    deadline_s = time.monotonic() + _TRIAL_S
    while (others := _other_threads()) and time.monotonic() < deadline_s:
        time.sleep(0.01)
    return not others


def _other_threads() -> list[str]:
    """The threads that a fork would miss."""
    names = [name for thread, name in proc.thread_names().items() if thread != os.getpid()]
    return [name for name in names if name not in _FORK_SAFE_THREADS]


def _fork_for_each_request(folder: Path, requests: int, caller_end: int, libc: ctypes.CDLL) -> None:
    """The server's life. Returns in each fork."""
    parent = os.getpid()
    poll = select.poll()
    poll.register(requests, select.POLLIN)
    poll.register(caller_end, select.POLLIN)
    while True:
        ready = dict(poll.poll())
        if caller_end in ready or os.read(requests, 1) != SAMPLE:
            os._exit(0)
        child = os.fork()
        if not child:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != parent:
                os._exit(1)
            os.close(requests)
            os.close(caller_end)
            return
        _await(child, folder, caller_end)


def _await(child: int, folder: Path, caller_end: int) -> None:
    """Waits for the end of a sample, ends what it left, and answers; ends the sample where nothing waits for the answer."""
    answers = -1
    with contextlib.suppress(OSError):
        answers = os.open(folder / ANSWERS, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    child_end = os.pidfd_open(child)
    poll = select.poll()
    poll.register(child_end, select.POLLIN)
    poll.register(caller_end, select.POLLIN)
    if answers >= 0:
        poll.register(answers, 0)  # reports an error once its reader is gone
        poll.poll()
    _end_descendants()
    os.close(child_end)
    if answers >= 0:
        with contextlib.suppress(OSError):
            os.write(answers, b"\n")
        os.close(answers)


def _end_descendants() -> None:
    """Kills and reaps all that is below this process; one may fork while it is looked up."""
    deadline_s = time.monotonic() + _ENDING_S
    while (living := descendants(os.getpid())) and time.monotonic() < deadline_s:
        for pid in living:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.001)
