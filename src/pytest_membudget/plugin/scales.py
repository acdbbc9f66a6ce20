"""`memory_scales`: one run of a test for each scale, the table they make, and the law that joins them.

Rows are kept in the folder that all processes of the session share, so that whichever of them runs the last scale
sees them all.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pytest_membudget.calibration import assert_law, chosen_scales, configured_scales, fit_law, scale_row
from pytest_membudget.errors import MembudgetError, OverBudgetError
from pytest_membudget.measurement import memory_limit
from pytest_membudget.plugin.batches import Account, NotingExecutor
from pytest_membudget.plugin.markers import ScalesMark, read_scales
from pytest_membudget.plugin.options import Settings
from pytest_membudget.plugin.shared import shared_folder
from pytest_membudget.records.judgement import Budget, Judgement
from pytest_membudget.records.measurement import Measurement
from pytest_membudget.records.scale import Scale, ScaleRow, ScaleTable

FIXTURE = "memory_scale"
_FOLDER = "scales"
DEFAULT_NAMES = ("micro", "small", "medium")

_KNOWN = pytest.StashKey[dict[str, Scale]]()


class _Line(msgspec.Struct, frozen=True):
    """One row as it is kept until the session's end."""

    title: str
    row: ScaleRow


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


def add_row(
    item: pytest.Item, mark: ScalesMark, measurement: Measurement, budget: Budget
) -> Judgement | None:
    """Keeps the row of this scale; judges the law when it is the last one of its test."""
    scale = getattr(item, "funcargs", {}).get(FIXTURE)
    if not isinstance(scale, Scale):
        return None
    title, expected = _title(item), _count_scales(item)
    file = _folder(item.config) / f"{hashlib.sha256(title.encode()).hexdigest()[:32]}.jsonl"
    before = [row for row in _rows(file) if row.scale.name != scale.name]
    smaller = [row for row in before if row.scale.size_bytes < scale.size_bytes]
    account = _account(item)
    row = scale_row(
        scale,
        measurement,
        limit_bytes=memory_limit().bytes,
        budget=budget.peak_bytes,
        smaller=smaller,
        breakdown=account and account.breakdown,
        tasks=account and account.tasks,
    )
    with file.open("ab") as stream:
        stream.write(msgspec.json.encode(_Line(title, row)) + b"\n")
    rows = _in_order([*before, row])
    if mark.law is None or len(rows) < expected:
        return None
    try:
        assert_law(rows, mark.law, mark.at_most)
    except OverBudgetError as error:
        return Judgement(verdict="over", failed=True, message=str(error))
    except MembudgetError as error:
        return Judgement(verdict="none", caveats=(f"the law was not judged: {error}",))
    return Judgement(verdict="within")


def tables(folder: Path) -> tuple[ScaleTable, ...]:
    """One table for each test that ran at several scales, from the session's shared folder."""
    files = sorted((folder / _FOLDER).glob("*.jsonl"), key=lambda file: file.stat().st_mtime_ns)
    made = []
    for file in files:
        rows = _in_order(_rows(file))
        title = next(_lines(file)).title
        made.append(ScaleTable(title=title, rows=tuple(rows), law=fit_law(rows)))
    return tuple(made)


def _account(item: pytest.Item) -> Account | None:
    """That of the one batch which the test ran with the fixture; several in a row are no plan of workers to go by."""
    executor = getattr(item, "funcargs", {}).get("fallback_executor")
    if not isinstance(executor, NotingExecutor) or len(executor.accounts) != 1:
        return None
    return executor.accounts[0]


def _configured(pyproject: Path) -> Mapping[str, Mapping[str, Any]]:
    try:
        table = tomllib.loads(pyproject.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    scales = table.get("tool", {}).get("membudget", {}).get("scales", {})
    if not isinstance(scales, dict) or not all(isinstance(fields, dict) for fields in scales.values()):
        raise MembudgetError(f"{pyproject}: write each scale as a table: [tool.membudget.scales.night]")
    return scales


def _title(item: pytest.Item) -> str:
    """The test without its scale, its other parameters included."""
    others = {name: value for name, value in _parameters(item).items() if name != FIXTURE}
    base = item.nodeid.partition("[")[0]
    return f"{base}[{', '.join(f'{name}={value!r}' for name, value in others.items())}]" if others else base


def _count_scales(item: pytest.Item) -> int:
    """How many scales of this test were collected."""
    title = _title(item)
    return sum(FIXTURE in _parameters(other) and _title(other) == title for other in item.session.items)


def _parameters(item: pytest.Item) -> Mapping[str, Any]:
    callspec = getattr(item, "callspec", None)
    return callspec.params if callspec is not None else {}


def _folder(config: pytest.Config) -> Path:
    folder = shared_folder(config) / _FOLDER
    folder.mkdir(exist_ok=True)
    return folder


def _lines(file: Path) -> Iterator[_Line]:
    if file.exists():
        for line in file.read_bytes().splitlines():
            yield msgspec.json.decode(line, type=_Line)


def _rows(file: Path) -> list[ScaleRow]:
    """The latest row of each scale."""
    return list({line.row.scale.name: line.row for line in _lines(file)}.values())


def _in_order(rows: list[ScaleRow]) -> list[ScaleRow]:
    return sorted(rows, key=lambda row: row.scale.size_bytes)
