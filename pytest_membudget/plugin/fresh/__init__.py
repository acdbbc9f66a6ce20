"""Tests that run in an interpreter of their own, and what a session tells that interpreter.

1. `run` starts the interpreter, or a fork of one that has collected the module (`fork_server`), and reads its reports;
2. `child_session` is the plugin that runs the one test there;
3. `isolate` puts those reports in the place of a test's own; `memray` asks who allocated, and is the plugin that records it
   for `membudget compare --revisions`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

VARIABLE = "PYTEST_MEMBUDGET_FRESH"
"""The environment variable that carries the request; taken out at once, so that no grandchild obeys it."""

Purpose = Literal["isolate", "sample", "memray", "scale"]


class FreshRequest(NamedTuple):
    """Run `nodeid`, which is found at `target`, and write one JSON line a report to `results`.

    With `rehearse` the test runs once before, untold, so that what it loads and keeps the first time is there.
    `options` replace those that the arguments give; the session's log goes to `log_file`. With `fork_server`, the folder
    that it is asked through, a fork server of the module at `target` is left instead, for the process `caller`.
    """

    nodeid: str
    target: str
    results: str
    basetemp: str
    shared: str
    purpose: Purpose
    rehearse: bool = False
    memray_capture: str = ""
    log_file: str = os.devnull
    options: Mapping[str, Any] = MappingProxyType({})
    fork_server: str = ""
    caller: int = 0

    def as_text(self) -> str:
        """For the environment, or a file."""
        return json.dumps({**self._asdict(), "options": dict(self.options)})


def take_request() -> FreshRequest:
    """The request of this interpreter."""
    return FreshRequest(**json.loads(os.environ.pop(VARIABLE)))


def read_request(file: Path) -> FreshRequest:
    """The request of one fork."""
    return FreshRequest(**json.loads(file.read_text(encoding="utf-8")))
