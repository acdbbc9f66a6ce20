"""Under pytest-xdist: how many workers there is memory for, what they have to know, and what they report.

What `-n auto` needs is imported when it asks: a session with a given number of workers reserves nothing.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_membudget.errors import MembudgetError
from pytest_membudget.measurement.process.high_water import resident_bytes
from pytest_membudget.measurement.system.machine import memory_reading
from pytest_membudget.plugin.options import Settings
from pytest_membudget.plugin.session_records import shared_folder
from pytest_membudget.units import format_size

if TYPE_CHECKING:
    from pytest_membudget.runtime.admission.semaphore import Lease

_USAGE_ERROR = "membudget_usage_error"

UNKNOWN_TEST_BYTES = 256 * 1024 * 1024
"""What a test is taken to need while neither a baseline nor a default budget says."""


class Controller:
    """The hooks of the process that hands tests to workers."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.usage_errors: dict[str, None] = {}

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tells a worker how the user called pytest, which fresh interpreters have to repeat."""
        parameters = self.config.invocation_params
        node.workerinput["membudget_invocation"] = json.dumps(
            [str(parameters.dir), *map(str, parameters.args)]
        )
        node.workerinput["membudget_environment"] = dict(_suite_memory(self.config).environment())

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        """Notes a worker's usage error."""
        text = getattr(node, "workeroutput", {}).get(_USAGE_ERROR)
        if text:
            self.usage_errors[text] = None

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Ends the session as it would have ended without workers."""
        for text in self.usage_errors:
            sys.stderr.write(f"ERROR: {text}\n")
            session.exitstatus = pytest.ExitCode.USAGE_ERROR

    def pytest_unconfigure(self) -> None:
        """Gives the workers' memory back, and removes what they shared."""
        _suite_memory(self.config).release()
        shutil.rmtree(shared_folder(self.config), ignore_errors=True)


def send_usage_error(config: pytest.Config, usage_error: str) -> None:
    """Hands a worker's usage error on."""
    config.workeroutput[_USAGE_ERROR] = usage_error  # type: ignore[attr-defined]


def fitting_workers(config: pytest.Config, cores: int, settings: Settings) -> int:
    """How many of `cores` workers there is memory for; reserved for this suite until its session ends."""
    return _suite_memory(config).fitting_workers(cores, settings.default_bytes, settings.baseline)


def _suite_memory(config: pytest.Config) -> SuiteMemory:
    return config.stash.setdefault(_SUITE_MEMORY, SuiteMemory())


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
        from pytest_membudget.runtime.admission.budgets import RESERVE_SHARE
        from pytest_membudget.runtime.admission.host_scope import DEFAULT_NAME, HostScope
        from pytest_membudget.runtime.admission.semaphore import MAX_OVERTAKES, Lease

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
    from pytest_membudget.runtime.admission.budgets import RESERVE_SHARE, reserved_share_bytes

    usable_bytes = available_bytes - reserved_share_bytes(limit_bytes, RESERVE_SHARE)
    return max(1, min(cores, usable_bytes // max(1, worker_bytes)))


def _largest_known(baseline: Path | None) -> int:
    """The largest peak in the baseline; an unreadable one is reported when the session is configured."""
    if baseline is None:
        return 0
    from pytest_membudget.gate.baseline import load_baseline

    try:
        return max((record.peak_bytes or 0 for record in load_baseline(baseline).tests), default=0)
    except (OSError, MembudgetError):
        return 0


_SUITE_MEMORY = pytest.StashKey[SuiteMemory]()
