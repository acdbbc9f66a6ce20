"""Paths as a reader sees them."""

from __future__ import annotations

import os
from pathlib import Path


def from_here(path: str | os.PathLike[str]) -> str:
    """As short as a reader who stands in the working directory needs it."""
    text = os.fspath(path)
    here = Path.cwd()
    return str(Path(text).relative_to(here)) if Path(text).is_relative_to(here) else text
