"""A test against its baseline: a state machine that asks for fresh samples, the finding, and the message that goes with it.

1. One measurement within the tolerance of the baseline's session decides: "same". Of a test whose fresh samples
   scatter beyond the tolerance the lowest figure counts: it costs reruns of that test alone, and a regression cannot
   hide in its scatter.
2. One beyond it is only a suspicion: the test is run again in fresh processes, "rerun" by "rerun".
3. It is called when the fresh samples agree, in one of two ways. Either both ends of their range moved beyond
   the tolerance: the lowest against the baseline's lowest, and the highest against its highest. Or, where both
   sides have enough samples, the medians lie beyond the tolerance and the exact rank test is sure at 0.5%.
4. As soon as no further samples could make them agree, it was noise: "same". Mostly that is after the first rerun.

Both ends, because peaks of racing threads have modes: a median jumps between them by chance, a whole range does
not. `benchmarks/test_gate_noise.py` has the error rates.

Fresh samples are compared with the baseline's own fresh samples where it has some, so that like is compared
with like: a test in a fresh process also pays for what earlier tests of a session have loaded already.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pytest_membudget.records.judgement import Advice, Judgement
from pytest_membudget.records.report import Comparison, TestRecord
from pytest_membudget.stats.samples import mann_whitney_p, median, samples_needed, smallest_p
from pytest_membudget.units import LARGEST_BYTES, Tolerance, format_count, format_size

Change = Literal["regressed", "improved"]
Step = Literal["rerun", "regressed", "same", "improved"]

DEFAULT_TOLERANCE = Tolerance(share=0.10, absolute_bytes=1024 * 1024)
DEFAULT_SAMPLES = 5
RANK_TEST_LEVEL = 0.005
"""So strict that one suite of twenty tests does not fail by chance; five samples on both sides can reach it."""

_MANY_SAMPLES = 20
"""More than anyone takes: better a baseline that holds more."""
_MANIFOLD = 10
"""From this factor on, a size says more than a percentage."""

ACCEPT_COMMAND = "pytest --membudget-update-baseline"


def next_step(
    base: TestRecord,
    peak_bytes: int,
    samples_bytes: Sequence[int] = (),
    *,
    tolerance: Tolerance = DEFAULT_TOLERANCE,
    wanted: int = DEFAULT_SAMPLES,
) -> Step:
    """What to do next about a test that took `peak_bytes` and, in fresh processes, `samples_bytes` so far.

    `wanted` is how many fresh samples may be taken; with 0 the one measurement decides.
    """
    if wanted == 0:
        return direction(base_peak(base), peak_bytes, tolerance)
    change = suspicion(base, peak_bytes, tolerance)
    if change == "same":
        return "same"
    # Samples that are still to come count as the strongest evidence there can be. Where even those would not suffice,
    # further runs cannot change the answer: of an unchanged test one rerun is usually enough.
    missing = wanted - len(samples_bytes)
    strongest = LARGEST_BYTES if change == "regressed" else 0
    supposed = [*samples_bytes, *([strongest] * missing)]
    could_agree = both_ends_moved(base, supposed, change, tolerance) or rank_test_is_sure(
        base, supposed, change, tolerance
    )
    if not could_agree:
        return "same"
    return "rerun" if missing > 0 else change


def suspicion(
    base: TestRecord, peak_bytes: int, tolerance: Tolerance
) -> Literal["regressed", "same", "improved"]:
    """What one measurement alone would say.

    It was taken within a session, and is compared with the baseline's figure of a session: those of fresh processes
    differ from both by what earlier tests load and keep. Where they scatter, though, that figure may be a high one by
    chance, and the lowest counts.
    """
    known = (base_peak(base), *base.samples_bytes)
    scatters = bool(base.samples_bytes) and (
        direction(min(base.samples_bytes), max(base.samples_bytes), tolerance) == "regressed"
    )
    if direction(min(known) if scatters else base_peak(base), peak_bytes, tolerance) == "regressed":
        return "regressed"
    return "improved" if direction(base_peak(base), peak_bytes, tolerance) == "improved" else "same"


def both_ends_moved(
    base: TestRecord, samples_bytes: Sequence[int], change: Change, tolerance: Tolerance
) -> bool:
    """Whether the lowest and the highest sample lie beyond the tolerance of the baseline's lowest and highest."""
    known = base.samples_bytes or (base_peak(base),)
    return all(direction(end(known), end(samples_bytes), tolerance) == change for end in (min, max))


def rank_test_is_sure(
    base: TestRecord, samples_bytes: Sequence[int], change: Change, tolerance: Tolerance
) -> bool:
    """Whether the medians lie beyond the tolerance and the rank test says that this is no chance."""
    p = rank_test_p(base, samples_bytes, change)
    if p is None or p > RANK_TEST_LEVEL:
        return False
    return direction(fresh_reference(base), median(samples_bytes), tolerance) == change


def direction(
    base_bytes: int, new_bytes: float, tolerance: Tolerance
) -> Literal["regressed", "same", "improved"]:
    """Whether `new_bytes` lies above the tolerance of `base_bytes`, within it, or as far below; its end is within."""
    allowed_bytes = tolerance.allowed_bytes(base_bytes)
    if new_bytes > allowed_bytes:
        return "regressed"
    return "improved" if new_bytes < 2 * base_bytes - allowed_bytes else "same"


def rank_test_p(base: TestRecord, samples_bytes: Sequence[int], change: Change) -> float | None:
    """One-sided p of the change; None where no outcome of so few samples, or of none, could be sure."""
    if smallest_p(len(base.samples_bytes), len(samples_bytes)) > RANK_TEST_LEVEL:
        return None
    return mann_whitney_p(base.samples_bytes, samples_bytes, "greater" if change == "regressed" else "less")


def base_peak(base: TestRecord) -> int:
    """The baseline's figure for one measurement within a session."""
    return base.peak_bytes or 0


def fresh_reference(base: TestRecord) -> int:
    """The baseline's figure for a fresh process: the median of its fresh samples, else its only figure."""
    return round(median(base.samples_bytes)) if base.samples_bytes else base_peak(base)


def compare_test(
    record: TestRecord,
    base: TestRecord,
    tolerance: Tolerance = DEFAULT_TOLERANCE,
    samples_bytes: Sequence[int] = (),
    *,
    strict: bool = False,
    wanted: int | None = None,
) -> Comparison:
    """The finding for `record`, once `next_step` asks for no more samples.

    `samples_bytes` are peaks of the same test in fresh processes. `strict` holds the upper figure against the
    baseline instead of the proven one.

    Raises:
        ValueError: `record` or `base` has no peak.
    """
    peak_bytes = record.peak_upper_bytes if strict else record.peak_bytes
    if peak_bytes is None or base.peak_bytes is None:
        raise ValueError(f"{record.nodeid} has no peak to compare; compare measured tests only")
    step = next_step(
        base,
        peak_bytes,
        samples_bytes,
        tolerance=tolerance,
        wanted=len(samples_bytes) if wanted is None else wanted,
    )
    finding = "same" if step == "rerun" else step
    base_bytes = fresh_reference(base) if samples_bytes else base_peak(base)
    new_bytes = round(median(samples_bytes)) if samples_bytes else peak_bytes
    suspected = suspicion(base, peak_bytes, tolerance)
    p = None if suspected == "same" else rank_test_p(base, samples_bytes, suspected)
    return Comparison(
        base_bytes=base_bytes,
        new_bytes=new_bytes,
        allowed_bytes=tolerance.allowed_bytes(base_bytes),
        finding=finding,
        samples_bytes=tuple(samples_bytes),
        base_samples_bytes=base.samples_bytes,
        p=p,
        caveats=() if finding == "same" else _caveats(base, samples_bytes, p),
    )


def judge_comparison(
    comparison: Comparison, *, nodeid: str = "", accept_command: str = ACCEPT_COMMAND
) -> Judgement:
    """A regression fails with both numbers; an improvement passes and says how to accept it."""
    if comparison.finding == "regressed":
        first = f"regressed: peak {_change(comparison)}, allowed {format_size(comparison.allowed_bytes)}"
        lines = [
            first,
            *([f"  allowed   {comparison.tolerance}"] if comparison.tolerance else []),
            *_evidence(comparison),
        ]
        return Judgement(
            verdict="regressed",
            failed=True,
            finding="\n".join(lines),
            advice=Advice(permit=accept_command, nodeid=nodeid),
            caveats=comparison.caveats,
        )
    if comparison.finding == "improved":
        text = f"improved: peak {_change(comparison)}; accept it: {accept_command}"
        return Judgement(verdict="within", finding=text, caveats=comparison.caveats)
    return Judgement(verdict="within", caveats=comparison.caveats)


def judge_undecided(comparison: Comparison, *, strict: bool = False) -> Judgement:
    """Of a test beyond its tolerance whose fresh samples could not be taken: in doubt, a failure under `strict`."""
    text = f"undecided: peak {_change(comparison)}, but a run in a fresh process did not pass; run this test alone to see why"
    return Judgement(
        verdict="inconclusive",
        failed=strict,
        finding=text if strict else "",
        caveats=(text, *comparison.caveats),
    )


def _change(comparison: Comparison) -> str:
    relative = ""
    if comparison.base_bytes:
        more_bytes = comparison.new_bytes - comparison.base_bytes
        shown = (
            f"{100 * comparison.change:+.1f}%"
            if comparison.change < _MANIFOLD
            else f"+{format_size(more_bytes)}"
        )
        relative = f" ({shown})"
    return f"{format_size(comparison.new_bytes)}, baseline {format_size(comparison.base_bytes)}{relative}"


def _evidence(comparison: Comparison) -> list[str]:
    if not comparison.samples_bytes:
        return ["  how       one measurement against the baseline; no fresh processes were asked for"]
    samples = ", ".join(format_size(sample) for sample in comparison.samples_bytes)
    again = "run again" if comparison.base_samples_bytes else "run twice, the second time measured,"
    lines = [
        f"  how       {again} in {format_count(len(comparison.samples_bytes), 'fresh process')}: {samples}"
    ]
    if comparison.p is not None:
        lines.append(
            f"            rank test against the baseline's {len(comparison.base_samples_bytes)} samples: "
            f"p = {comparison.p:.4f}"
        )
    return lines + [f"  note      {caveat}" for caveat in comparison.caveats]


def _caveats(base: TestRecord, samples_bytes: Sequence[int], p: float | None) -> tuple[str, ...]:
    if p is not None or not samples_bytes:
        return ()
    have, taken = len(base.samples_bytes), len(samples_bytes)
    needed = samples_needed(have or taken, RANK_TEST_LEVEL)
    if have and (needed is None or needed > _MANY_SAMPLES):
        lack = (
            f"for a rank test the baseline has too few fresh samples, {have}; update it with "
            f"--membudget-samples={DEFAULT_SAMPLES}"
        )
    elif have:
        lack = f"a rank test against the baseline's {have} needs {needed} samples, not {taken}"
    else:
        lack = f"the baseline has no samples from fresh processes, and a rank test against {taken} needs {needed}"
    return (f"judged by the tolerance alone: {lack}",)
