"""Who leaks: allocation sites and object types that grow over some further calls."""

from __future__ import annotations

from pytest_membudget.measurement.growth.allocation_sites import growing_sites
from pytest_membudget.measurement.growth.call_timeout import CallTooLongError
from pytest_membudget.measurement.growth.object_types import growing_types
from pytest_membudget.measurement.growth.repeat import Rounds
from pytest_membudget.measurement.growth.samples import EXACT_BYTES, PAGED_BYTES
from pytest_membudget.records.growth import Culprit
from pytest_membudget.stats.growth import Trend

_MOST_SHOWN = 5
_LEAST_SHARE = 0.1
_MOST_SHARE = 1.5
_FEWEST_CALLS = 8
_TYPES_UNTIL = 0.93
_MOST_FURTHER_BYTES = 64 << 20
_MOST_FURTHER_COUNT = 50


def find_culprits(repeated: Rounds, trends: dict[str, Trend], timeout_s: float) -> tuple[Culprit, ...]:
    """Makes some further calls of a leaking function; says what they added: sites, then types, each largest first.

    Types are left out where the time is nearly over.
    """
    heap_bytes_per_call = trends["heap_bytes"].slope
    most_calls = _further_calls(trends)
    try:
        sites = growing_sites(repeated, heap_bytes_per_call, most_calls)
        types = growing_types(repeated, most_calls) if repeated.elapsed_s < _TYPES_UNTIL * timeout_s else []
    except CallTooLongError:
        return ()
    # A few calls are few: what seems to grow by more than the whole leak is what else went on meanwhile.
    types = [each for each in types if each.bytes_per_call <= _MOST_SHARE * heap_bytes_per_call]
    least_bytes = _LEAST_SHARE * heap_bytes_per_call
    return (*_largest(sites, least_bytes), *_largest(types, least_bytes))


def _further_calls(trends: dict[str, Trend]) -> int:
    """As many calls as the machine can bear: what leaks goes on leaking."""
    bytes_per_call = sum(max(0.0, trends[name].slope) for name in (*EXACT_BYTES, *PAGED_BYTES))
    count_per_call = max(trends[kind].slope for kind in ("descriptors", "threads", "children", "segments"))
    bearable = min(
        _MOST_FURTHER_BYTES / max(bytes_per_call, 1.0), _MOST_FURTHER_COUNT / max(count_per_call, 1e-6)
    )
    return max(_FEWEST_CALLS, int(bearable / 3))


def _largest(culprits: list[Culprit], least_bytes: float) -> list[Culprit]:
    ordered = sorted(culprits, key=lambda culprit: culprit.bytes_per_call, reverse=True)
    return [culprit for culprit in ordered[:_MOST_SHOWN] if culprit.bytes_per_call >= least_bytes]
