"""What a test may take, and what was found when its measurement was held against that."""

from __future__ import annotations

from typing import Literal

import msgspec

Verdict = Literal[
    "within",
    "over",
    "over_upper",
    "killed",
    "crashed",
    "leak",
    "clean",
    "inconclusive",
    "regressed",
    "none",
]


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """What a test may add (`peak_bytes`), reach in all (`total_bytes`) and keep (`retained_bytes`), in bytes."""

    peak_bytes: int | None = None
    total_bytes: int | None = None
    retained_bytes: int | None = None


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """A verdict and its reasons.

    `message` is empty where there is nothing to say; its first line holds both numbers and stands alone, the
    lines below it explain. `failed` tells whether the test has to fail for it.
    """

    verdict: Verdict
    failed: bool = False
    message: str = ""
    caveats: tuple[str, ...] = ()
