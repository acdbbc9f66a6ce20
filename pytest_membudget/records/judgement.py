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


class Advice(msgspec.Struct, frozen=True):
    """What to do about a failure: find out who allocates, or permit it.

    `permit` is the marker or the command that permits what was measured, `nodeid` the test where the message is not about
    the one that runs.
    """

    permit: str = ""
    nodeid: str = ""


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """A verdict and its reasons.

    `finding` is empty where there is nothing to say; its first line holds both numbers and stands alone, the
    lines below it explain. `trace` is where the test was stopped. `failed`: the test has to fail for it.
    """

    verdict: Verdict
    failed: bool = False
    finding: str = ""
    advice: Advice | None = None
    trace: str = ""
    caveats: tuple[str, ...] = ()

    @property
    def message(self) -> str:
        """All that it says."""
        return self.worded()

    def worded(self, *, was_stopped: bool = False, is_explained: bool = False) -> str:
        """All that it says of a test that was stopped before its end, or whose allocations are listed below the message."""
        lines = [self.finding]
        if self.advice is not None:
            named = f' "{self.advice.nodeid}"' if self.advice.nodeid else ""
            run = "listed below" if is_explained else f"run this test with --membudget-memray{named}"
            lines.append(f"  next      see who allocated it: {run}")
            if was_stopped:
                lines.append("            what it would have used is not known, since it was stopped")
            elif self.advice.permit:
                lines.append(f"            or, if it may use that much: {self.advice.permit}")
        if self.trace:
            lines += ["", self.trace]
        return "\n".join(lines)
