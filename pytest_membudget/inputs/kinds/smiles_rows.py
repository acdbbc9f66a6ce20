"""smiles: one molecule a line, its structure, a tab and its name.

Structures are chains of two-valent groups between one-valent ends, so that every atom keeps its valence.
"""

from __future__ import annotations

from pytest_membudget.inputs.format import LAST_IDENTIFIER, Draw

OPENING = b""
_NAME = f"\tM{LAST_IDENTIFIER}\n"
SMALLEST_CLOSING = 1 + len(_NAME)

_STARTS = (
    "C",
    "CC",
    "CC(C)",
    "OCC",
    "NCC",
    "FC(F)(F)",
    "N#CC",
    "c1ccccc1",
    "Clc1ccc(cc1)",
    "Cc1ccc(cc1)",
    "C1CCCC1",
)
_GROUPS = (
    "C", "CC", "C(C)C", "C(=O)N", "C(=O)OC", "NC(=O)", "COC", "CSC", "S(=O)(=O)N", "c1ccc(cc1)", "c1cccc(c1)",
    "c1cnc(nc1)", "N1CCN(CC1)", "C1CCC(CC1)", "C(O)C", "C(N)C", "C=C", "c1ccc2cc(ccc2c1)", "[C@H](C)C", "[C@@H](O)C",
)  # fmt: skip
_ENDS = (
    "C",
    "O",
    "N",
    "F",
    "Cl",
    "Br",
    "C#N",
    "C(=O)O",
    "C(F)(F)F",
    "c1ccccc1",
    "c1ccncc1",
    "C1CC1",
    "N(C)C",
)


def record(draw: Draw, identifier: str) -> str:
    """One molecule."""
    chain = "C".join([draw.pick(_GROUPS) for _ in range(draw.whole(1, 6))])
    return f"{draw.pick(_STARTS)}C{chain}C{draw.pick(_ENDS)}\tM{identifier}\n"


def closing(room: int) -> str:
    """A last molecule, the straight alkane whose length takes up the room."""
    return f"{'C' * (room - len(_NAME))}{_NAME}"
