"""Under pytest-xdist: what workers have to know, and what they tell."""

from __future__ import annotations

import json
import shutil
import sys
from typing import Any

import pytest

from pytest_membudget.plugin.options import Settings
from pytest_membudget.plugin.report.session_files import shared_folder

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
        node.workerinput["membudget_environment"] = workers_environment()

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
        release_workers()
        shutil.rmtree(shared_folder(self.config), ignore_errors=True)


def tell_controller(config: pytest.Config, usage_error: str) -> None:
    """Hands a worker's usage error on."""
    config.workeroutput[_USAGE_ERROR] = usage_error  # type: ignore[attr-defined]


def fitting_workers(cores: int, settings: Settings) -> int:
    """How many of `cores` workers there is memory for; reserved for this suite until `release_workers`."""
    from pytest_membudget.plugin.suite_memory import suite_memory

    return suite_memory.fitting_workers(cores, settings.default_bytes, settings.baseline)


def workers_environment() -> dict[str, str]:
    """Variables by which what tests reserve from the host's budget comes out of what was reserved for the suite."""
    module = sys.modules.get("pytest_membudget.plugin.suite_memory")
    return {} if module is None else dict(module.suite_memory.environment())


def release_workers() -> None:
    """Gives back what `fitting_workers` reserved, if it did."""
    module = sys.modules.get("pytest_membudget.plugin.suite_memory")
    if module is not None:
        module.suite_memory.release()
