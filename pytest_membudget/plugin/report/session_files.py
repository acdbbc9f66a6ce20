"""The folder that all processes of one session share, and the records that tests leave there for its report.

pytest-xdist's workers and fresh interpreters share it too. The records are lines of JSON in a file, so that the process that
reports sees them all.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from pytest_membudget.plugin.roles import is_controller, is_fresh, is_worker
from pytest_membudget.records import shared_lines


def keep(config: pytest.Config, file_name: str, records: Sequence[msgspec.Struct]) -> None:
    """Adds `records` to those of the session in that file, where there is to be a report."""
    if records and config.pluginmanager.has_plugin("membudget-measuring"):
        shared_lines.add_records(shared_folder(config) / file_name, records)


_MADE = pytest.StashKey[Path]()


def shared_folder(config: pytest.Config) -> Path:
    """The folder; made where it is missing."""
    if _MADE not in config.stash:
        folder = _place(config)
        folder.mkdir(parents=True, exist_ok=True)
        config.stash[_MADE] = folder
    return config.stash[_MADE]


def shared_folder_if_made(config: pytest.Config) -> Path | None:
    """The folder, where any process of the session needed it."""
    return shared_folder(config) if _MADE in config.stash or is_controller(config) else None


def temporary_folders(config: pytest.Config) -> pytest.TempPathFactory:
    """The factory of pytest itself, which outside of fixtures has no public name.

    Raises:
        pytest.UsageError: it was switched off.
    """
    factory: pytest.TempPathFactory | None = getattr(config, "_tmp_path_factory", None)
    if factory is None:
        raise pytest.UsageError(
            "isolated tests, scales, synthetic files and the watchdog need pytest's temporary folders; "
            "drop -p no:tmpdir"
        )
    return factory


def _place(config: pytest.Config) -> Path:
    if is_fresh(config):
        from pytest_membudget.plugin.fresh.child_session import ORDERS

        return Path(ORDERS.shared)
    base = temporary_folders(config).getbasetemp()
    # pytest-xdist puts each worker's temporary folder into the controller's.
    return (base.parent if is_worker(config) else base) / "membudget"
