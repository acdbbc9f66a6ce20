"""The law that joins the scales: fitted, used to foretell the next one, and held against the law it should be."""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from pytest_membudget.calibration.concurrent_tasks import foretell_side_by_side
from pytest_membudget.errors import OverBudgetError, UsageError
from pytest_membudget.records.scale import CurvePoint, LawFit, Scale, ScaleRow
from pytest_membudget.stats.laws import CONFIDENCE, Law, allowed_rise, judge_law, steepest_rise
from pytest_membudget.units import format_size, parse_size

_CURVE_POINTS = 16
_SLOPE = re.compile(r"\s*([0-9]{1,12}(?:\.[0-9]{0,12})?)\s*([A-Za-z]+)\s*/\s*([A-Za-z]+)\s*", re.ASCII)


def predict_next(rows: Sequence[ScaleRow], scale: Scale) -> CurvePoint | None:
    """What `scale` would take, by what the rows so far took; `None` with fewer than two sizes.

    Rows that tell what each of their tasks took are put together anew for the workers of `scale`. Others are joined by
    the law of their totals, with a bound for one run: 90% confidence from three sizes on, and with two the most that
    the doubt about each allows.
    """
    together = foretell_side_by_side(rows, scale)
    if together is not None:
        return together
    points = _points(rows)
    if len({size for size, _ in points}) < 2:
        return None
    foretold = _curve_point(judge_law(points), scale.size_bytes)
    if len(rows) > 2:
        return foretold
    first, second = (
        (row.scale.size_bytes, row.peak_bytes, max(row.peak_bytes, row.peak_upper_bytes or 0)) for row in rows
    )
    at_most = max(foretold.bound_bytes, round(steepest_rise(first, second, scale.size_bytes)))
    return msgspec.structs.replace(foretold, bound_bytes=at_most)


def fit_law(rows: Sequence[ScaleRow]) -> LawFit | None:
    """The law of growth through the rows, with its curve from 0 to the largest size; `None` with fewer than two."""
    points = _points(rows)
    if len({size for size, _ in points}) < 2:
        return None
    law = judge_law(points)
    largest = max(size for size, _ in points)
    sizes = [round(largest * step / _CURVE_POINTS) for step in range(_CURVE_POINTS + 1)]
    caveats = (
        ()
        if law.slope_high is not None
        else ("two scales give a slope but no bound for it; run a third to have one",)
    )
    return LawFit(
        shape=law.shape,
        slope=law.slope,
        slope_bound=law.slope if law.slope_high is None else law.slope_high,
        base_bytes=round(law.base_bytes),
        curve=tuple(_curve_point(law, size) for size in sizes),
        caveats=caveats,
    )


def parse_slope(text: str) -> float:
    """Bytes per byte from "8 B/B", "2 MB/MB" or "8 kB/B".

    Raises:
        UsageError: not of that form.
    """
    match = _SLOPE.fullmatch(text)
    wrong = UsageError(f'{text!r} is not a slope; write bytes per byte of size, such as "8 B/B"')
    if match is None:
        raise wrong
    number, above, below = match.groups()
    try:
        return float(number) * parse_size(f"1 {above}") / parse_size(f"1 {below}")
    except ValueError:
        raise wrong from None


def check_law(law: str | None, at_most: str | None) -> None:
    """Checks the arguments of a law before anything runs.

    Raises:
        UsageError: an unknown law, or a slope that cannot be read.
    """
    if law not in (None, "flat", "linear"):
        raise UsageError(f'law={law!r} is not a law; write law="flat" or law="linear"')
    if at_most is not None:
        parse_slope(at_most)


def assert_law(rows: Sequence[ScaleRow], law: str | None = None, at_most: str | None = None) -> LawFit | None:
    """Judges the law that the rows follow against the one they should: "flat", or "linear" (with a largest slope).

    "flat" allows a slope whose bound keeps the rise over all scales within 10% + 1 MiB, or within `at_most`.

    Raises:
        OverBudgetError: the slope's bound is above what is allowed, or growth is worse than linear.
        UsageError: unknown law, unreadable slope, or fewer than two sizes.
    """
    check_law(law, at_most)
    found = fit_law(rows)
    if law is None and at_most is None:
        return found
    if found is None:
        raise UsageError("a law of growth needs at least two scales of different size; name more scales")
    points = _points(rows)
    span = max(size for size, _ in points) - min(size for size, _ in points)
    allowed = parse_slope(at_most) if at_most else allowed_rise(points) / span if law == "flat" else None
    _raise_if_worse(found, law, allowed, points)
    return found


def _raise_if_worse(
    found: LawFit, law: str | None, allowed: float | None, points: list[tuple[float, float]]
) -> None:
    seen = ", ".join(f"{format_size(peak)} at {format_size(size)}" for size, peak in points)
    wanted = f'law="{law}"' if law else "the slope"
    if found.shape == "worse" and law is not None:
        raise OverBudgetError(
            f"{wanted} does not hold: the peak grows faster than the size ({seen}); "
            "look for what is kept of every row, or is compared with every other"
        )
    if allowed is not None and found.slope_bound > allowed:
        raise OverBudgetError(
            f"{wanted} does not hold: the peak grows by {found.slope:.3g} B/B, at most {found.slope_bound:.3g} B/B, "
            f"where {allowed:.3g} B/B is allowed ({seen}); process in smaller pieces, or allow more with at_most="
        )


def _points(rows: Sequence[ScaleRow]) -> list[tuple[float, float]]:
    return [(row.scale.size_bytes, row.peak_bytes) for row in rows]


def _curve_point(law: Law, size_bytes: float) -> CurvePoint:
    expected = law.fit.expect(size_bytes)
    bound = law.fit.prediction_bound(size_bytes, confidence=CONFIDENCE)
    return CurvePoint(round(size_bytes), round(expected), round(max(bound, expected)))
