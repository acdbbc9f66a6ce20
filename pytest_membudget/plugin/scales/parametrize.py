"""`memory_scales`: which scales there are, and one run of a test for each.

What the runs took is kept by `scale_rows` and joined by `law`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pytest_membudget.calibration.scales import chosen_scales, configured_scales
from pytest_membudget.errors import MembudgetError
from pytest_membudget.plugin.markers import read_scales
from pytest_membudget.plugin.options import Settings
from pytest_membudget.plugin.scales.rows import FIXTURE
from pytest_membudget.records.scale import Scale

DEFAULT_NAMES = ("micro", "small", "medium")

_KNOWN = pytest.StashKey[dict[str, Scale]]()


def known_scales(config: pytest.Config) -> dict[str, Scale]:
    """The default scales and presets, those of pyproject.toml, and those that the hook adds.

    Raises:
        ValueError: pyproject.toml holds a scale that makes no sense.
    """
    if _KNOWN not in config.stash:
        scales = configured_scales(_configured(config.rootpath / "pyproject.toml"))
        config.hook.pytest_membudget_scales(config=config, scales=scales)
        config.stash[_KNOWN] = scales
    return config.stash[_KNOWN]


def unknown(settings: Settings, config: pytest.Config) -> list[str]:
    """What is wrong with `--membudget-scales`, whether or not a test takes a scale."""
    try:
        chosen_scales(settings.scales, known_scales(config))
    except (MembudgetError, ValueError) as error:
        return [f"--membudget-scales: {error}"]
    return []


def parametrize(metafunc: pytest.Metafunc, settings: Settings) -> str | None:
    """Gives the test one run a scale; answers with what is wrong, if anything is."""
    if any(FIXTURE in mark.args[:1] for mark in metafunc.definition.iter_markers("parametrize")):
        return None
    mark = metafunc.definition.get_closest_marker("memory_scales")
    try:
        names = settings.scales or (read_scales(mark).names if mark else ()) or DEFAULT_NAMES
        scales = chosen_scales(names, known_scales(metafunc.config))
    except (MembudgetError, ValueError) as error:
        metafunc.parametrize(FIXTURE, [], indirect=True)
        return f"{metafunc.definition.nodeid}: memory_scales: {error}"
    metafunc.parametrize(FIXTURE, scales, indirect=True, ids=[scale.name for scale in scales])
    return None


def _configured(pyproject: Path) -> Mapping[str, Mapping[str, Any]]:
    try:
        table = tomllib.loads(pyproject.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    scales = table.get("tool", {}).get("membudget", {}).get("scales", {})
    if not isinstance(scales, dict) or not all(isinstance(fields, dict) for fields in scales.values()):
        raise MembudgetError(f"{pyproject}: write each scale as a table: [tool.membudget.scales.night]")
    return scales
