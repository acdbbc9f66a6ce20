"""How to write on this standard output: its width, whether colours suit it, and which signs it can show."""

from __future__ import annotations

import os
import shutil
import sys
from typing import NamedTuple


class Manner(NamedTuple):
    """What a renderer for terminals wants to know."""

    width: int
    color: bool
    ascii_only: bool


def manner_of_stdout() -> Manner:
    """Colours on terminals alone and never with NO_COLOR; plain ASCII where the encoding lacks our signs."""
    on_terminal = sys.stdout.isatty()
    try:
        "–±".encode(sys.stdout.encoding or "ascii")
        ascii_only = False
    except (UnicodeEncodeError, LookupError):
        ascii_only = True
    return Manner(
        width=shutil.get_terminal_size((80, 24)).columns if on_terminal else 80,
        color=on_terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb",
        ascii_only=ascii_only,
    )
