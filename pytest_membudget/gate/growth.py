"""Growth per call against what was allowed."""

from __future__ import annotations

from pytest_membudget.records.growth import Growth
from pytest_membudget.records.judgement import Judgement
from pytest_membudget.units import format_count, format_duration, format_size

_MOST_CULPRITS = 5
_HEADROOM = 1.1


def judge_growth(growth: Growth, strict: bool = False) -> Judgement:
    """The verdict of `growth` as it stands; *inconclusive* fails under `strict` alone."""
    if growth.verdict == "clean":
        return Judgement(verdict="clean", caveats=growth.caveats)
    if growth.verdict == "leak":
        return Judgement(
            verdict="leak", failed=True, finding=_message(growth, _leak(growth)), caveats=growth.caveats
        )
    text = _message(growth, _doubt(growth))
    return Judgement(
        verdict="inconclusive",
        failed=strict,
        finding=text if strict else "",
        caveats=(*growth.caveats, text.partition("\n")[0]),
    )


def _leak(growth: Growth) -> str:
    if growth.low_bytes_per_call <= growth.allowed_bytes_per_call and growth.resources:
        first = growth.resources[0]
        return f"leak of {first.kind}: {first.per_call:.3g} more per call, 0 allowed"
    return (
        f"leak: {format_size(growth.bytes_per_call)} more per call, "
        f"{format_size(growth.allowed_bytes_per_call)} allowed"
    )


def _doubt(growth: Growth) -> str:
    allowed = f"{format_size(growth.allowed_bytes_per_call)} allowed"
    if not growth.is_bounded:
        return (
            f"growth is inconclusive: unknown after {format_count(growth.calls, 'call')}, {allowed} per call"
        )
    low, high = format_size(growth.low_bytes_per_call), format_size(growth.high_bytes_per_call)
    return f"growth is inconclusive: between {low} and {high} per call, {allowed}"


def _message(growth: Growth, headline: str) -> str:
    lines = [
        headline,
        f"  measured  {format_count(growth.calls, 'call')} in {format_duration(growth.duration_s)}: {_interval(growth)}",
        "  how       heap in use, mmapped memory and Python's small blocks, after a collection at each boundary",
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
    lines.append(f"  next      {_advice(growth)}")
    return "\n".join(lines)


def _interval(growth: Growth) -> str:
    if not growth.is_bounded:
        return "too few to tell the growth per call"
    low, high = format_size(growth.low_bytes_per_call), format_size(growth.high_bytes_per_call)
    return f"{low} to {high} per call with {growth.confidence:.0%} confidence"


def _advice(growth: Growth) -> str:
    if growth.verdict == "inconclusive":
        return "give it more time (timeout_s), or make one call shorter so that more of them fit"
    if growth.low_bytes_per_call <= growth.allowed_bytes_per_call:
        return "close, join or wait for what each call opens or starts"
    where = (
        f"look at what keeps {growth.culprits[0].name} alive between calls"
        if growth.culprits
        else "look for what each call adds to a module, a class, a cache or a list"
    )
    return f'{where}, or allow it: per_call="{format_size(growth.high_bytes_per_call * _HEADROOM)}"'
