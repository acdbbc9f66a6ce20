"""How commands write: on this standard output (its width, colours, and signs that it can show), and into files."""

from __future__ import annotations

import argparse
import codecs
import os
import shutil
import sys
from typing import NamedTuple, TextIO

_SPELT_OUT = {
    "γ": "gamma",
    "η": "eta",
    "µ": "u",
    "×": "x",
    "±": "+/-",
    "≤": "<=",
    "≥": ">=",
    "→": "->",
    "…": "...",
}
_HANDLER = "membudget-spell-out"


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


def add_output_option(parser: argparse._ActionsContainer) -> None:
    """`--output PATH`, of commands whose result has several formats."""
    parser.add_argument(
        "-o",
        "--output",
        metavar="PATH",
        action="append",
        default=[],
        help="write it there; the ending (.html, .md, .json) picks the format; may be given more than once",
    )


def spell_out(*streams: TextIO) -> None:
    """Has the streams write in ASCII what their encoding lacks, rather than raise once an hour of runs is over."""
    codecs.register_error(_HANDLER, _in_ascii)
    for stream in streams:
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None and stream.errors == "strict":
            reconfigure(errors=_HANDLER)


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    """One sign in the place of one that cannot be encoded."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    sign = error.object[error.start]
    spelt = _SPELT_OUT.get(sign) or ("-" if sign in "–—" else ascii(sign)[1:-1])
    return spelt, error.start + 1
