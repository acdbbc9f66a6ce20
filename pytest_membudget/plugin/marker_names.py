"""The markers' names and descriptions, and which tests ask to be measured. Imported at start-up: cheap to import."""

from __future__ import annotations

import pytest

DESCRIPTIONS = (
    (
        "memory_budget(peak, total=None, retained=None, tolerance=None, isolate=False, hard=False, timeout_s=None): "
        "limit the memory of a test: fail it when "
        "its process tree rises by more than peak above its start; a size is text such as '200 MiB', bytes, a function, "
        "or 'estimate'; tolerance is how far it may rise above its baseline; isolate runs it in a fresh interpreter, hard ends it as "
        "soon as it is over; memory_budget(False) leaves the test out"
    ),
    (
        "memory_growth(per_call='0 B', timeout_s=10, fresh_fixtures=False): repeat the test and fail it when memory grows by more "
        "per call; fresh_fixtures sets fixtures of function scope up for each repetition"
    ),
    (
        "memory_scales(*names, law=None, at_most=None, predictors=None): run the test once for each scale, which it takes as memory_scale; "
        "law is 'flat' or 'linear', at_most the largest slope, such as '8 B/B'; predictors are named functions of a scale "
        "that larger scales are predicted by"
    ),
)

NAMES = frozenset({"memory_budget", "memory_growth", "memory_scales"})
_ASKING_FIXTURES = frozenset({"membudget", "memory_scale"})


def is_marked(item: pytest.Item) -> bool:
    """Whether a marker or a fixture asks for this test to be measured (about 2 µs)."""
    return any(mark.name in NAMES for mark in item.iter_markers()) or not _ASKING_FIXTURES.isdisjoint(
        getattr(item, "fixturenames", ())
    )
