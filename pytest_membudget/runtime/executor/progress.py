"""How far a batch is, on a terminal; nothing elsewhere."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import TextIO


@contextlib.contextmanager
def progress(total: int | None, stream: TextIO | None = None) -> Iterator[Callable[[], object]]:
    """A function to be called for each input that ended."""
    where = sys.stderr if stream is None else stream
    if where is None or not where.isatty():
        yield lambda: None
        return
    from tqdm import tqdm

    with tqdm(total=total, unit="file", file=where, leave=False) as bar:
        yield bar.update
