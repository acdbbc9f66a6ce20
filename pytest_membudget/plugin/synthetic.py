"""The fixtures `synthetic_file` and `synthetic_files`: each file is made once a session and shared by all workers."""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from pytest_membudget.errors import UsageError
from pytest_membudget.inputs import KINDS, synthesize
from pytest_membudget.records.files import SyntheticFile
from pytest_membudget.records.scale import Scale
from pytest_membudget.records.storage import encode_json, read_json, write_atomically
from pytest_membudget.units import Size, parse_size, parse_size_range

_READ_ONLY = 0o444


class SyntheticFiles:
    """Makes synthetic files, or finds those that were made before; they are read-only, since tests share them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def one(self, size: Size, kind: str = "csv", *, seed: int = 0) -> SyntheticFile:
        """A file of exactly `size`.

        Raises:
            ValueError: not a size, or an unknown kind.
        """
        size_bytes = parse_size(size)
        if kind not in KINDS:
            raise UsageError(f"{kind!r} is not a kind of file; there are {', '.join(KINDS)}")
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{size_bytes}-{seed}.{kind}"
        card = path.with_name(f"{path.name}.rows")
        with _alone(path.with_name(f"{path.name}.lock")):
            if not card.exists():
                made = synthesize(path, size_bytes, kind=kind, seed=seed)
                made.path.chmod(_READ_ONLY)
                write_atomically(card, encode_json(made.rows))
        rows = read_json(card, int, what="the number of a synthetic file's rows")
        return SyntheticFile(path=path, size_bytes=path.stat().st_size, rows=rows, kind=kind)

    def several(
        self, sizes: Size | Sequence[Size] | Scale, kind: str = "csv", *, count: int = 1, seed: int = 0
    ) -> list[SyntheticFile]:
        """`count` files of each size: one size, a list, a range such as "1MB..16MB", or one file a batch of a scale."""
        each: Sequence[Size]
        if isinstance(sizes, Scale):
            each, count = [sizes.size_bytes // sizes.batches], sizes.batches
        elif isinstance(sizes, str):
            each = parse_size_range(sizes)
        else:
            each = sizes if isinstance(sizes, Sequence) else [sizes]
        return [self.one(size, kind, seed=seed + number) for size in each for number in range(count)]

    def remove(self) -> None:
        """Deletes them all, when the session is over."""
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """One process at a time; where the system has no such lock, two may make the same file twice."""
    if sys.platform == "win32":
        yield
        return
    import fcntl

    with lock.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
