"""How many workers `pytest -n auto` may start: what there is memory for, reserved from the budget of the host."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from pytest_membudget.errors import MembudgetError
from pytest_membudget.measurement.process.high_water import resident_bytes
from pytest_membudget.measurement.system.machine import memory_reading
from pytest_membudget.runtime.admission.available_budget import (
    RESERVE_SHARE,
    reserved_share_bytes,
)
from pytest_membudget.runtime.admission.host_scope import DEFAULT_NAME, HostScope
from pytest_membudget.runtime.admission.semaphore import MAX_OVERTAKES, Lease
from pytest_membudget.units import format_size

UNKNOWN_TEST_BYTES = 256 * 1024 * 1024
"""What a test is taken to need while neither a baseline nor a default budget says."""


class SuiteMemory:
    """What `-n auto` reserves of the host's budget for the workers of one suite.

    Suites that start at the same moment do not count on the same bytes, and each gets one worker before any gets the
    rest. What tests themselves reserve from the host's budget comes out of the suite's lease.
    """

    def __init__(self) -> None:
        self._lease: Lease | None = None

    def fitting_workers(self, cores: int, default_bytes: int | None, baseline: Path | None) -> int:
        """How many of `cores` workers there is memory for, at least one; waits until there is for the first.

        A test is taken to need the largest peak in `baseline`, or the default budget. Where the state that programs of
        this host share cannot be used, what is available now counts.
        """
        test_bytes = max(default_bytes or 0, _largest_known(baseline)) or UNKNOWN_TEST_BYTES
        worker_bytes = resident_bytes() + test_bytes
        try:
            return self._reserve(cores, worker_bytes)
        except (MembudgetError, OSError) as error:
            _say(f"the memory that other programs reserved is not counted: {error}")
            now = memory_reading()
            return workers_that_fit(cores, now.available_bytes, now.limit.bytes, worker_bytes)

    def _reserve(self, cores: int, worker_bytes: int) -> int:
        scope = HostScope(
            None,
            name=DEFAULT_NAME,
            reserve=RESERVE_SHARE,
            max_overtakes=MAX_OVERTAKES,
            reading=memory_reading,
        )
        worker_bytes = min(worker_bytes, scope.ceiling_bytes())  # one worker starts on any machine
        claim = scope.submit(worker_bytes, exclusive=False)
        if not claim.granted and self._lease is not None:
            scope.release(claim)  # it would wait for this very process
            return 0
        if not claim.granted:
            now = scope.statistics()
            _say(
                f"waiting for {format_size(worker_bytes)} for a first worker: {format_size(now.reserved_bytes)} of "
                f"this host's {format_size(now.budget_bytes)} are reserved by other programs. `membudget host` shows "
                "them; -n with a number waits for none"
            )
        scope.wait(claim, None)
        workers = 1 + scope.grow(claim, worker_bytes, cores - 1)
        if self._lease is None:
            self._lease = Lease(scope, claim)
        return workers

    def environment(self) -> Mapping[str, str]:
        """Variables by which what workers reserve from the host's budget comes out of this lease."""
        return {} if self._lease is None else self._lease.environment()

    def release(self) -> None:
        """Gives it back; again, without effect."""
        if self._lease is not None:
            self._lease.release()
            self._lease = None


def _say(sentence: str) -> None:
    sys.stderr.write(f"membudget: {sentence}\n")
    sys.stderr.flush()


def workers_that_fit(cores: int, available_bytes: int, limit_bytes: int, worker_bytes: int) -> int:
    """At most `cores`, at least one, and no more than fit into what is available less the reserve."""
    usable_bytes = available_bytes - reserved_share_bytes(limit_bytes, RESERVE_SHARE)
    return max(1, min(cores, usable_bytes // max(1, worker_bytes)))


def _largest_known(baseline: Path | None) -> int:
    """The largest peak in the baseline; an unreadable one is told when the session is configured."""
    if baseline is None:
        return 0
    from pytest_membudget.gate.baseline import load_baseline

    try:
        return max((record.peak_bytes or 0 for record in load_baseline(baseline).tests), default=0)
    except (OSError, MembudgetError):
        return 0


suite_memory = SuiteMemory()
"""What this process reserved: `-n auto` is answered once in it."""
