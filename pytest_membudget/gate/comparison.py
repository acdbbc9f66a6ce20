"""A test against its baseline: the finding, and the message that goes with it."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_membudget.gate.decision import (
    DEFAULT_SAMPLES,
    DEFAULT_TOLERANCE,
    RANK_TEST_LEVEL,
    base_peak,
    fresh_reference,
    next_step,
    rank_test_p,
    suspicion,
)
from pytest_membudget.records.judgement import Advice, Judgement
from pytest_membudget.records.report import Comparison, TestRecord
from pytest_membudget.stats.samples import median, samples_needed
from pytest_membudget.units import Tolerance, format_count, format_size

_MANY_SAMPLES = 20
"""Nobody runs a test so often again: better a baseline that holds more."""
_MANIFOLD = 10
"""From so much more on, a percentage tells a reader nothing."""

ACCEPT_COMMAND = "pytest --membudget-update-baseline"


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
