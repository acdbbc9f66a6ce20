"""`check_growth`: repeats a function until it can say whether its memory grows with every call."""

from __future__ import annotations

import gc as live_gc  # changed here
import warnings as live_warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pytest_membudget.errors import UsageError
from pytest_membudget.measurement.growth.culprits import find_culprits
from pytest_membudget.measurement.growth.judge import Judge
from pytest_membudget.measurement.growth.repeat import Rounds, interrupted_after
from pytest_membudget.measurement.growth.samples import EXACT_BYTES, PAGED_BYTES, FigureReader, Inventory
from pytest_membudget.measurement.process.reclaim import collector
from pytest_membudget.originals import contextlib, gc
from pytest_membudget.records.judgement import Growth
from pytest_membudget.stats.growth import CONFIDENCE
from pytest_membudget.units import Size, parse_size

_LONGEST_S = 1_000_000
_SHARE_FOR_THE_VERDICT = 0.85
"""The rest of the time is for the culprits."""
_QUESTIONS = ("freeze", "get_freeze_count", "get_objects", "get_referrers", "unfreeze")
"""What tells a program that objects are frozen."""


def check_growth(
    fn: Callable[[], Any],
    per_call: Size = "0 B",
    *,
    timeout_s: float = 10.0,
    setup: Callable[[], Any] | None = None,
    teardown: Callable[[], Any] | None = None,
    culprits: bool = True,
    label: str = "",
) -> Growth:
    """Calls `fn()` again and again and judges whether memory or resources grow with the calls.

    Stops as soon as the verdict is sure. `setup` and `teardown` run before and after every call and are judged with
    it. Growth up to `per_call` bytes a call is fine; what lies less than 4 bytes above it cannot be told from it.

    Args:
        fn: what to repeat; what it returns is dropped. Its own exceptions propagate.
        per_call: the allowed growth of a call.
        timeout_s: seconds after which the verdict is *inconclusive* if it is not sure by then. What the first call takes
            longer than the others, up to as many seconds, does not count. A call that runs past the limit is interrupted where Python allows that (main thread, not inside C code), else waited for.
        setup: called before each call.
        teardown: called after each call, also when it raised.
        culprits: for a leak, make some further calls to find out what grows.
        label: name of the function in the result; its qualified name by default.

    Raises:
        UsageError: the allowance or the time limit is not usable.
    """
    if not 0 < timeout_s < _LONGEST_S:
        raise UsageError(
            f"timeout_s={timeout_s} is no time limit; write seconds, above 0 and below {_LONGEST_S:,}"
        )
    try:
        allowed_bytes = parse_size(per_call)
    except ValueError as error:
        raise UsageError(f"per_call: {error}") from None
    call = _as_one_call(fn, setup, teardown)
    with each_warning_once(), old_objects_frozen(), contextlib.closing(FigureReader()) as reader:
        inventory = Inventory.take()  # with the files that the reader holds open
        rounds = Rounds(call, reader, timeout_s * _SHARE_FOR_THE_VERDICT)
        with interrupted_after(
            timeout_s, lambda: rounds.running and rounds.counted_s >= timeout_s
        ) as can_interrupt:
            finding = Judge(rounds, allowed_bytes, timeout_s).run(can_interrupt=can_interrupt)
            leaks = finding.verdict == "leak"
            sites = find_culprits(rounds, finding.trends, timeout_s) if culprits and leaks else ()
        resources = inventory.growth(finding.trends, reader)
        counted = [
            found
            for name, found in finding.trends.items()
            if name in EXACT_BYTES or (name in PAGED_BYTES and found.direction == "growing")
        ]
        held, mapped = finding.trends["heap_bytes"], finding.trends["mapped_bytes"]
        if reader.counts_mappings_twice and mapped.slope < 2 * max(
            held.slope, finding.trends["resident_bytes"].slope
        ):
            counted.remove(mapped)  # the mappings of an allocator whose memory is in another figure
        low, high = (sum(ends) for ends in zip(*(found.bounds() for found in counted), strict=True))
        return Growth(
            verdict=finding.verdict,
            bytes_per_call=sum(found.slope for found in counted),
            low_bytes_per_call=low,
            high_bytes_per_call=high,
            allowed_bytes_per_call=allowed_bytes,
            calls=rounds.calls,
            duration_s=rounds.elapsed_s,
            confidence=CONFIDENCE,
            label=label or getattr(fn, "__qualname__", ""),
            culprits=sites,
            resources=resources,
            caveats=(*reader.caveats, *finding.doubts),
        )


def _as_one_call(
    fn: Callable[[], Any], setup: Callable[[], Any] | None, teardown: Callable[[], Any] | None
) -> Callable[[], Any]:
    if setup is None and teardown is None:
        return fn

    def call() -> None:
        if setup is not None:
            setup()
        try:
            fn()
        finally:
            if teardown is not None:
                teardown()

    return call


@contextmanager
def each_warning_once() -> Iterator[None]:
    """A test runner keeps every warning that it gets: what it keeps of each call is not the call's own growth."""
    show = live_warnings.showwarning
    shown = set()

    def show_once(message: Any, category: Any, filename: str, lineno: int, *rest: Any, **named: Any) -> None:
        if (category, filename, lineno) not in shown:
            shown.add((category, filename, lineno))
            show(message, category, filename, lineno, *rest, **named)

    live_warnings.showwarning = show_once
    try:
        yield
    finally:
        live_warnings.showwarning = show


@contextmanager
def old_objects_frozen() -> Iterator[None]:
    """Takes what exists already out of every collection, so that collecting after each round is cheap.

    A function that asks the collector what there is gets everything, as ever: from its first question on nothing is frozen.
    """
    frozen_before = gc.get_freeze_count()
    answers = {name: getattr(live_gc, name) for name in _QUESTIONS if hasattr(live_gc, name)}
    collector.collect_fully()
    gc.freeze()

    def thaw() -> None:
        gc.unfreeze()
        for name, answer in answers.items():
            setattr(live_gc, name, answer)

    def thawing(answer: Callable[..., Any]) -> Callable[..., Any]:
        def answer_thawed(*arguments: Any, **named: Any) -> Any:
            thaw()
            return answer(*arguments, **named)

        return answer_thawed

    for name, answer in answers.items():
        setattr(live_gc, name, thawing(answer))
    try:
        yield
    finally:
        thaw()
        if frozen_before:
            gc.freeze()
