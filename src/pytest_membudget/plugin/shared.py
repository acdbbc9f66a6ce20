"""A folder that all processes of one test session share: pytest-xdist's workers and fresh interpreters too."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_membudget.plugin.roles import is_fresh, is_worker


def shared_folder(config: pytest.Config) -> Path:
    """The folder; made where it is missing."""
    if is_fresh(config):
        from pytest_membudget.plugin.child import ORDERS

        folder = Path(ORDERS.shared)
    else:
        base = session_basetemp(config)
        # pytest-xdist puts each worker's temporary folder into the controller's.
        folder = (base.parent if is_worker(config) else base) / "membudget"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def session_basetemp(config: pytest.Config) -> Path:
    """Where this process's temporary folders are."""
    return temporary_folders(config).getbasetemp()


def temporary_folders(config: pytest.Config) -> pytest.TempPathFactory:
    """The factory of pytest itself, which outside of fixtures has no public name."""
    factory: pytest.TempPathFactory = config._tmp_path_factory  # type: ignore[attr-defined]  # noqa: SLF001 - see above
    return factory
