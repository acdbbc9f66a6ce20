"""Under pytest-xdist: what workers have to know, and how many of them the memory of this machine bears."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from pytest_membudget.errors import MembudgetError
from pytest_membudget.plugin.options import Settings
from pytest_membudget.plugin.shared import shared_folder

UNKNOWN_TEST_BYTES = 256 * 1024 * 1024
"""What a test is taken to need while neither a baseline nor a default budget tells."""


_USAGE_ERROR = "membudget_usage_error"


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
        """Removes what the workers shared."""
        shutil.rmtree(shared_folder(self.config), ignore_errors=True)


def tell_controller(config: pytest.Config, usage_error: str) -> None:
    """Hands a worker's usage error on."""
    config.workeroutput[_USAGE_ERROR] = usage_error  # type: ignore[attr-defined]


def fitting_workers(cores: int, settings: Settings) -> int:
    """How many of `cores` workers the memory of this machine bears now."""
    from pytest_membudget.measurement.process.high_water import resident_bytes
    from pytest_membudget.measurement.system.limit import memory_reading

    reading = memory_reading()
    test_bytes = max(settings.default_bytes or 0, _largest_known(settings.baseline)) or UNKNOWN_TEST_BYTES
    return workers_that_fit(
        cores, reading.available_bytes, reading.limit.bytes, resident_bytes() + test_bytes
    )


def workers_that_fit(cores: int, available_bytes: int, limit_bytes: int, worker_bytes: int) -> int:
    """At most `cores`, at least one, and no more than fit into what is available less the reserve."""
    from pytest_membudget.runtime.admission.available_budget import RESERVE_SHARE, reserved_share_bytes

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
