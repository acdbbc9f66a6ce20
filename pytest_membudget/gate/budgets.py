"""One measurement against its budget: what is judged, the verdict, and the message that explains it.

1. `figures_of` are the sizes that a budget speaks of, each with its lower and upper bound;
2. `judge` holds them against the budget; `status_of` grades one scale of a job;
3. the message has both numbers in its first line, and below how they were obtained and what to do;
4. `judge_growth` holds growth per call against what was allowed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pytest_membudget.records.judgement import Advice, Budget, Growth, Judgement
from pytest_membudget.records.measurement import Measurement
from pytest_membudget.records.scale import ScaleStatus
from pytest_membudget.units import (
    BYTES_PER_UNIT,
    format_as_written,
    format_count,
    format_duration,
    format_size,
)

TARGET_SHARE = 0.70
"""A run that takes more than this share of the limit is flagged, whatever its budget."""

_HEADROOM = 1.25
_STEPS = (1, 1.5, 2, 3, 4, 5, 6, 8, 10)
_SMALLEST_BYTES = 1024**2
_MOST_PROCESSES = 4

_MOST_CULPRITS = 5
_GROWTH_HEADROOM = 1.1


class Figure(NamedTuple):
    """One judged size: proven and upper figure, its budget, the marker argument that set it, and its meaning."""

    name: str
    argument: str
    meaning: str
    proven_bytes: int
    upper_bytes: int
    budget_bytes: int


def figures_of(measurement: Measurement, budget: Budget) -> list[Figure]:
    """One figure for each part of `budget` that is given."""
    figures: list[Figure] = []

    def add(name: str, low_bytes: int, high_bytes: int, budget_bytes: int) -> None:
        figures.append(Figure(name, *_ARGUMENT_AND_MEANING[name], low_bytes, high_bytes, budget_bytes))

    if budget.peak_bytes is not None:
        add("peak", measurement.peak_bytes, measurement.peak_upper_bytes, budget.peak_bytes)
    if budget.total_bytes is not None:
        doubt_bytes = measurement.peak_upper_bytes - measurement.peak_bytes
        total_bytes = measurement.total_peak_bytes
        add("total peak", total_bytes, total_bytes + doubt_bytes, budget.total_bytes)
    if budget.retained_bytes is not None:
        # What a library's pool may have kept at the end is held by no object of the test's.
        kept_bytes = sum(each.size_bytes for each in measurement.caveat_records if each.kind == "pool-at-end")
        retained_bytes = measurement.retained_bytes
        add("retained", max(0, retained_bytes - kept_bytes), retained_bytes, budget.retained_bytes)
    return figures


_ARGUMENT_AND_MEANING = {
    "peak": ("", "peak of the whole process tree above its start"),
    "total peak": ("total=", "absolute peak of the whole process tree"),
    "retained": ("retained=", "what the process tree holds at the end above its start"),
}


def suggested_budget(peak_bytes: int) -> str:
    """A budget that would fit, as one writes it: a quarter above the peak, rounded up, at least "1 MiB"."""
    wanted = max(peak_bytes * _HEADROOM, _SMALLEST_BYTES)
    unit = "MiB" if wanted <= 1000 * 1024**2 else "GiB"
    in_unit = wanted / BYTES_PER_UNIT[unit]
    decade = 1
    while in_unit > 10 * decade:
        decade *= 10
    return f"{next(step * decade for step in _STEPS if in_unit <= step * decade):g} {unit}"


def judge(measurement: Measurement, budget: Budget, *, strict: bool = False) -> Judgement:
    """Whether the measured peak, total and retained sizes are within `budget`; exactly at it passes.

    A proven figure above its budget is "over" and fails. Where only the upper figure is above it, the verdict
    is "over_upper": a caveat, and a failure under `strict`.
    """
    figures = figures_of(measurement, budget)
    if not figures:
        return Judgement(verdict="none", caveats=measurement.caveats)
    over = [figure for figure in figures if figure.proven_bytes > figure.budget_bytes]
    if over:
        return Judgement(
            verdict="over",
            failed=True,
            finding=explain(measurement, over, [_over_line(figure) for figure in over]),
            advice=_advice(over),
            caveats=measurement.caveats,
        )
    doubtful = [figure for figure in figures if figure.upper_bytes > figure.budget_bytes]
    if doubtful:
        lines = [_doubt_line(figure) for figure in doubtful]
        return Judgement(
            verdict="over_upper",
            failed=strict,
            finding=explain(measurement, doubtful, lines) if strict else "",
            advice=_advice(doubtful) if strict else None,
            caveats=(*measurement.caveats, *lines),
        )
    return Judgement(verdict="within", caveats=measurement.caveats)


def _over_line(figure: Figure) -> str:
    over_bytes = figure.proven_bytes - figure.budget_bytes
    measured, allowed = _told_apart(figure.proven_bytes, figure.budget_bytes)
    share = f", {over_bytes / figure.budget_bytes:.0%}" if figure.budget_bytes else ""
    written = format_as_written(figure.budget_bytes)
    if written != format_size(figure.budget_bytes):
        allowed += f" = {written}"
    return f"{figure.name} {measured} > budget {allowed} (+{format_size(over_bytes)}{share})"


def _doubt_line(figure: Figure) -> str:
    upper, allowed = _told_apart(figure.upper_bytes, figure.budget_bytes)
    return f"{figure.name} at most {upper} > budget {allowed}, yet only {format_size(figure.proven_bytes)} is proven"


def _told_apart(measured_bytes: int, allowed_bytes: int) -> tuple[str, str]:
    """Both sizes as text; in whole bytes where rounding would make them look the same."""
    measured, allowed = format_size(measured_bytes), format_size(allowed_bytes)
    if measured == allowed:
        return f"{measured_bytes:,} B", f"{allowed_bytes:,} B"
    return measured, allowed


def status_of(
    peak_bytes: int, limit_bytes: int, budget_bytes: int | None = None, target: float = TARGET_SHARE
) -> ScaleStatus:
    """FAIL over the budget or the limit, HIGH above `target` of the limit, else PASS; on the mark passes."""
    if budget_bytes is not None and peak_bytes > budget_bytes:
        return "FAIL"
    if limit_bytes and peak_bytes > limit_bytes:
        return "FAIL"
    return "HIGH" if limit_bytes and peak_bytes > target * limit_bytes else "PASS"


def explain(measurement: Measurement, figures: Sequence[Figure], headlines: Sequence[str]) -> str:
    """One headline a figure, then the explanation they share."""
    lines = [*headlines]
    for position, figure in enumerate(figures):
        lines.append(_line("measured" if position == 0 else "", f"{figure.meaning}: {_interval(figure)}"))
    lines.append(_line("how", obtained(measurement)))
    lines.append(_line("", _course(measurement)))
    largest = sorted(measurement.shares, key=lambda share: -share.peak_bytes)[:_MOST_PROCESSES]
    lines += [
        _line(
            "largest" if position == 0 else "",
            f"{share.name} (pid {share.pid}): {format_size(share.peak_bytes)}",
        )
        for position, share in enumerate(largest)
    ]
    lines += [_line("note", caveat) for caveat in measurement.caveats]
    return "\n".join(lines)


def obtained(measurement: Measurement) -> str:
    """How the figure came about, in words."""
    if measurement.source == "kernel":
        return "the kernel's own high-water mark" + ("" if measurement.exact else ", as an interval")
    pace = f" every {measurement.interval_s * 1000:.3g} ms" if measurement.interval_s else ""
    return f"process tree sampled{pace}; the upper bound covers what may have passed between samples"


def _interval(figure: Figure) -> str:
    if figure.upper_bytes == figure.proven_bytes:
        return format_size(figure.proven_bytes)
    return f"at least {format_size(figure.proven_bytes)}, at most {format_size(figure.upper_bytes)}"


def _course(measurement: Measurement) -> str:
    return (
        f"{format_count(measurement.processes, 'process')} in {format_duration(measurement.duration_s)}; start {format_size(measurement.start_bytes)}, "
        f"total peak {format_size(measurement.total_peak_bytes)}, end {format_size(measurement.end_bytes)}"
    )


def _advice(figures: Sequence[Figure]) -> Advice:
    markers = ", ".join(f'{figure.argument}"{suggested_budget(figure.upper_bytes)}"' for figure in figures)
    return Advice(permit=f"@pytest.mark.memory_budget({markers})")


def _line(title: str, text: str) -> str:
    return f"  {title:<9} {text}"


def judge_growth(growth: Growth, strict: bool = False) -> Judgement:
    """The verdict of `growth` as it stands; *inconclusive* fails under `strict` alone."""
    if growth.verdict == "clean":
        return Judgement(verdict="clean", caveats=growth.caveats)
    if growth.verdict == "leak":
        return Judgement(
            verdict="leak",
            failed=True,
            finding=_growth_message(growth, _leak_headline(growth)),
            caveats=growth.caveats,
        )
    text = _growth_message(growth, _doubt_headline(growth))
    return Judgement(
        verdict="inconclusive",
        failed=strict,
        finding=text if strict else "",
        caveats=(*growth.caveats, text.partition("\n")[0]),
    )


def _leak_headline(growth: Growth) -> str:
    if growth.low_bytes_per_call <= growth.allowed_bytes_per_call and growth.resources:
        first = growth.resources[0]
        return f"leak of {first.kind}: {first.per_call:.3g} more per call, 0 allowed"
    return (
        f"leak: {format_size(growth.bytes_per_call)} more per call, "
        f"{format_size(growth.allowed_bytes_per_call)} allowed"
    )


def _doubt_headline(growth: Growth) -> str:
    allowed = f"{format_size(growth.allowed_bytes_per_call)} allowed"
    if not growth.is_bounded:
        return (
            f"growth is inconclusive: unknown after {format_count(growth.calls, 'call')}, {allowed} per call"
        )
    low, high = format_size(growth.low_bytes_per_call), format_size(growth.high_bytes_per_call)
    return f"growth is inconclusive: between {low} and {high} per call, {allowed}"


def _growth_message(growth: Growth, headline: str) -> str:
    lines = [
        headline,
        f"  measured  {format_count(growth.calls, 'call')} in {format_duration(growth.duration_s)}: {_growth_interval(growth)}",
        "  how       heap in use, mappings, children, shared memory and resources, after a collection at each boundary",
    ]
    lines += [
        f"  {'grows' if position == 0 else '':<9} {culprit.name}: {format_size(culprit.bytes_per_call)} per call"
        for position, culprit in enumerate(growth.culprits[:_MOST_CULPRITS])
    ]
    lines += [
        f"  piles up  {resource.kind}: {resource.per_call:.3g} per call"
        + (f", such as {', '.join(resource.examples[:3])}" if resource.examples else "")
        for resource in growth.resources
    ]
    lines += [
        f"  {'doubt' if position == 0 else '':<9} {caveat}" for position, caveat in enumerate(growth.caveats)
    ]
    lines.append(f"  next      {_growth_advice(growth)}")
    return "\n".join(lines)


def _growth_interval(growth: Growth) -> str:
    if not growth.is_bounded:
        return "too few to measure the growth per call"
    low, high = format_size(growth.low_bytes_per_call), format_size(growth.high_bytes_per_call)
    return f"{low} to {high} per call with {growth.confidence:.0%} confidence"


def _growth_advice(growth: Growth) -> str:
    if growth.verdict == "inconclusive":
        return "give it more time (timeout_s), or make one call shorter so that more of them fit"
    is_within = growth.low_bytes_per_call <= growth.allowed_bytes_per_call
    if is_within or (growth.resources and not growth.culprits):
        return "close, join or wait for what each call opens or starts"
    where = (
        f"look at what keeps {growth.culprits[0].name} alive between calls"
        if growth.culprits
        else "look for what each call adds to a module, a class, a cache or a list"
    )
    return f'{where}, or allow it: per_call="{format_size(growth.high_bytes_per_call * _GROWTH_HEADROOM)}"'
