"""Records that a test adds to the session's report, beside its own: kept as lines of JSON in a file.

The file is in the folder that all processes of the session share, so that the one that reports sees them all.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

from pytest_membudget.plugin.shared import shared_folder
from pytest_membudget.records import journal


def keep(config: pytest.Config, file_name: str, records: Sequence[msgspec.Struct]) -> None:
    """Adds `records` to those of the session in that file, where there is to be a report."""
    if records and config.pluginmanager.has_plugin("membudget-measuring"):
        journal.append(shared_folder(config) / file_name, records)
