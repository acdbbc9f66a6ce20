"""Shared memory beside what is mapped: files in `/dev/shm`, open ones without a name (memfd), segments of System V. Whose is it?

What this process or a descendant has open, and the segments of System V that one of them made, are theirs. A file in `/dev/shm` does not say which process made it. One that another program has open or mapped is that program's. The others
are taken for the function's only if they come with its calls: calls and pauses as long alternate, and were the files another
program's, as many would come in the one as in the other. So by chance the calls have more of them in half of the pairs: the sign test.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from math import comb
from typing import Literal, NamedTuple, Protocol

from pytest_membudget.measurement.process import proc
from pytest_membudget.measurement.process.children import descendants
from pytest_membudget.originals import contextlib, os, re, restored, sys, time

_LINUX = sys.platform.startswith("linux")
_MOST_PAIRS = 40
_LEAST_WINDOW_S = 0.005
_FEWEST_PAIRS = 9
"""Seven with more files in the calls are proof."""
_MOST_CALLS = 1000
_BY_CHANCE = 0.01


_IN_MEMORY = (b"/dev/shm/", b"/memfd:", b"/SYSV")
_MAPPED = re.compile(
    rb"^([0-9a-f]+)-([0-9a-f]+) \S+ \S+ \S+ (\d+) +(?:" + b"|".join(_IN_MEMORY) + b")", re.MULTILINE
)


def mapped_by_inode(maps: bytes) -> dict[int, int]:
    """Bytes of shared memory that `/proc/self/maps` lists, by the number of the file or of the segment."""
    found: dict[int, int] = {}
    if not any(place in maps for place in _IN_MEMORY):  # 20 times faster than matching a thousand lines
        return found
    for first, last, inode in _MAPPED.findall(maps):
        found[int(inode)] = found.get(int(inode), 0) + int(last, 16) - int(first, 16)
    return found


class _Segment(NamedTuple):
    """A file in memory or a segment of System V: its inode or number, and the bytes that it holds."""

    number: int
    size_bytes: int


class SharedReading(NamedTuple):
    """The number of new files and segments; bytes in new files, and in what processes of this tree have open or made otherwise."""

    segments: int
    files_bytes: int
    held_bytes: int


class SharedFiles:
    """Shared memory that appeared since this was made: what is not mapped is in no process."""

    folder = "/dev/shm"  # noqa: S108 - where the system has them

    def __init__(self) -> None:
        self._devices = _memory_devices(self.folder)
        self._are_counted = True
        self._names_before = self._names()
        self._segments_before = {each.number for each in _system_v_segments(_own_tree())}

    def read(self, mapped: Mapping[int, int]) -> SharedReading:
        """The figures now, beyond what is `mapped`: bytes by inode or number of the segment."""
        pids = _own_tree()
        files = {each.number: each.size_bytes for each in self._new_files()}
        segments = {each.number: each.size_bytes for each in _system_v_segments(pids)}
        held = segments | {
            each.number: each.size_bytes for each in self._open_files(pids) if each.number not in files
        }
        return SharedReading(
            len(files) + len(segments.keys() - self._segments_before),
            _beyond(mapped, files),
            _beyond(mapped, held),
        )

    def leave_files_out(self) -> None:
        """Counts no files in the folder from now on, and segments from here on."""
        self._are_counted = False
        self._segments_before = {each.number for each in _system_v_segments(_own_tree())}

    def names(self) -> frozenset[str]:
        """The names that have appeared since, below the folder."""
        return self._names() - self._names_before if self._are_counted else frozenset()

    def examples(self) -> list[str]:
        """What to show of the segments that have appeared."""
        segments = _system_v_segments(_own_tree())
        return [*sorted(self.names()), *(f"System V segment {each.number}" for each in segments)]

    def held_elsewhere(self, names: Iterable[str]) -> frozenset[str]:
        """Those that a process which is none of this one's tree has open or mapped, as far as this user may see that."""
        ours = set(_own_tree())
        wanted = {f"{self.folder}/{name}": name for name in names}
        found: set[str] = set()
        for pid in proc.processes():
            if pid not in ours:
                paths = {*proc.open_files(pid).values(), *proc.mapped_files(pid)}
                found.update(wanted[path] for path in paths if path in wanted)
        return frozenset(found)

    def _names(self) -> frozenset[str]:
        if not _LINUX:
            return frozenset()
        return frozenset(path[len(self.folder) + 1 :] for path in _files_below(self.folder))

    def _new_files(self) -> Iterator[_Segment]:
        """Those of this user."""
        for name in self.names():
            with contextlib.suppress(OSError):
                status = os.stat(f"{self.folder}/{name}", follow_symlinks=False)
                if status.st_uid == os.getuid():
                    yield _Segment(status.st_ino, status.st_blocks * 512)

    def _open_files(self, pids: Iterable[int]) -> Iterator[_Segment]:
        """Files in memory that these processes have open, without a name or there from the start."""
        for pid in pids if self._devices else ():
            for descriptor in proc.descriptors(pid):
                with contextlib.suppress(OSError):  # closed meanwhile
                    status = os.stat(f"/proc/{pid}/fd/{descriptor}")
                    if status.st_dev in self._devices:
                        yield _Segment(status.st_ino, status.st_blocks * 512)


def _files_below(folder: str) -> Iterator[str]:
    """As `os.walk` has them, which calls what a test may have replaced."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _files_below(entry.path)
            else:
                yield entry.path


def _own_tree() -> list[int]:
    return [os.getpid(), *descendants()]


def _beyond(mapped: Mapping[int, int], held: Mapping[int, int]) -> int:
    return sum(max(0, size_bytes - mapped.get(number, 0)) for number, size_bytes in held.items())


def _memory_devices(folder: str) -> frozenset[int]:
    """Of files that lie in memory: those of memfd, and those in the folder."""
    found = set()
    with contextlib.suppress(OSError, AttributeError), restored():
        descriptor = os.memfd_create("membudget", os.MFD_CLOEXEC)
        found.add(os.fstat(descriptor).st_dev)
        os.close(descriptor)
        if os.path.realpath(folder) == "/dev/shm":  # noqa: S108 - a folder of a test is none in memory
            found.add(os.stat(folder).st_dev)
    return frozenset(found)


def _system_v_segments(makers: Iterable[int]) -> Iterator[_Segment]:
    """Those that these processes made and that exist still: `shmid`, `cpid` and `rss` of `/proc/sysvipc/shm`."""
    wanted = {b"%d" % pid for pid in makers}
    for line in proc.read("sysvipc", "shm").splitlines()[1:]:
        fields = line.split()
        if len(fields) > _RSS and fields[_MAKER] in wanted:
            yield _Segment(int(fields[1]), int(fields[_RSS]))


_MAKER, _RSS = 4, 14
"""Columns of `/proc/sysvipc/shm`."""


Pair = tuple[frozenset[str], frozenset[str]]
"""The names of files that came in a window of calls, and in the pause after it."""


class Repeated(Protocol):
    """What can call the function again."""

    def make_calls(self, count: int, for_s: float) -> int:
        """Calls up to `count` times, and begins no call after `for_s` seconds."""


Origin = Literal["calls", "others", "unknown"]
"""Of new files: the function's calls, others (or both), or the calls as it seems, on too few files to be certain."""


def origin_of_files(repeated: Repeated, files: SharedFiles, for_s: float, between_s: float = 0.0) -> Origin:
    """Whether more files come with calls than in pauses between them.

    Takes `for_s` seconds at most and a call, and twice as long while files come with calls alone, but too few for a proof.
    `between_s` is the mean time from one new file to the next: where not every call makes one, a window holds two.
    """
    begun_at = time.perf_counter()
    window_s = max(_LEAST_WINDOW_S, min(2 * between_s, for_s / (2 * _FEWEST_PAIRS)))
    pairs: list[Pair] = []
    before = files.names()
    while len(pairs) < _MOST_PAIRS:
        spent_s = time.perf_counter() - begun_at
        if spent_s > 2 * for_s or (spent_s > for_s and not _come_with_calls_alone(pairs)):
            break
        begun = time.perf_counter()
        repeated.make_calls(_MOST_CALLS, window_s)
        called = files.names()
        time.sleep(time.perf_counter() - begun)
        paused = files.names()
        pairs.append((called - before, paused - called))
        if _is_proven(pairs):
            return "calls"
        before = paused
    others = files.held_elsewhere(frozenset().union(*(came for pair in pairs for came in pair)))
    unclaimed = [(in_calls - others, in_pause - others) for in_calls, in_pause in pairs]
    if others and _is_proven(unclaimed):
        return "calls"
    return "unknown" if _come_with_calls_alone(unclaimed) else "others"


def _come_with_calls_alone(pairs: list[Pair]) -> bool:
    return any(in_calls for in_calls, _ in pairs) and not any(in_pause for _, in_pause in pairs)


def _is_proven(pairs: list[Pair]) -> bool:
    """Whether so many pairs with more files in the calls would hardly come by chance; equal ones say nothing."""
    more = sum(len(in_calls) > len(in_pause) for in_calls, in_pause in pairs)
    trials = sum(len(in_calls) != len(in_pause) for in_calls, in_pause in pairs)
    as_good = sum(comb(trials, count) for count in range(more, trials + 1))
    return as_good < _BY_CHANCE * 2.0**trials
