"""`memory_scales`: which scales there are, one run of a test for each, the rows that these leave, and their law.

Rows are kept in the folder that all processes of the session share, so that whichever of them runs the last scale
sees them all.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pytest_membudget.calibration.growth_law import assert_law, fit_law, scales_in_doubt
from pytest_membudget.calibration.scales import chosen_scales, configured_scales, scale_features, scale_row
from pytest_membudget.errors import MembudgetError, OverBudgetError
from pytest_membudget.measurement.system.machine import memory_limit
from pytest_membudget.plugin.fixtures.runtime import Account, RecordingExecutor
from pytest_membudget.plugin.fresh.run import run_fresh
from pytest_membudget.plugin.markers import ScalesMark, read_scales
from pytest_membudget.plugin.options import Settings
from pytest_membudget.plugin.running_test import RunningTest
from pytest_membudget.plugin.session_records import SCALES, shared_folder
from pytest_membudget.plugin.terminal_summary import showing_progress
from pytest_membudget.records import json_lines
from pytest_membudget.records.judgement import Budget, Judgement
from pytest_membudget.records.measurement import Measurement
from pytest_membudget.records.scale import Scale, ScaleRow, ScaleTable
from pytest_membudget.records.storage import write_atomically

FIXTURE = "memory_scale"
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
        asked = read_scales(mark) if mark else ScalesMark()
        scales = chosen_scales(settings.scales or asked.names or DEFAULT_NAMES, known_scales(metafunc.config))
        for scale in scales:
            scale_features(asked.predictors, scale)  # one that fails is reported before anything runs
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


_AGAIN = "run again in a fresh interpreter, where the second run counts"
_RUN_HERE = pytest.StashKey[set[str]]()


class KeptRow(msgspec.Struct, frozen=True):
    """One row as it is kept until the session's end.

    `first`: of its test in its process, so that its peak holds whatever is loaded and kept once. `again`: measured in a
    fresh interpreter, where that run was the second and pays for nothing of the kind.
    """

    title: str
    row: ScaleRow
    first: bool = False
    again: bool = False

    @property
    def name(self) -> str:
        """That of its scale."""
        return self.row.scale.name


def scale_of(test: RunningTest) -> Scale | None:
    """The scale that the test ran at."""
    scale = test.value(FIXTURE)
    return scale if isinstance(scale, Scale) else None


def add_row(test: RunningTest, scale: Scale, measurement: Measurement, budget: Budget) -> bool:
    """Keeps the row of this scale; says whether it was the one that completes the table of its test."""
    title = _title(test)
    run_here = test.config.stash.setdefault(_RUN_HERE, set())
    kept = KeptRow(title, _row(test, scale, measurement, budget), first=title not in run_here)
    run_here.add(title)
    json_lines.add_records(_file(test), [kept])
    # Of other processes too: the one whose row is the last judges, and it alone.
    lines = json_lines.read_records(_file(test), KeptRow).records
    return lines[-1].name == scale.name and len({line.name for line in lines}) >= len(siblings(test))


def leave_row(test: RunningTest, scale: Scale, measurement: Measurement, budget: Budget) -> None:
    """In a fresh interpreter: leaves the row for the session that asked for it; of several runs, that of the last."""
    write_atomically(_left(test, scale.name), msgspec.json.encode(_row(test, scale, measurement, budget)))


def take_row(test: RunningTest, name: str) -> None:
    """Puts the row that a fresh interpreter left in the place of the scale's own, and says so beside it.

    Raises:
        FileNotFoundError: it left none.
    """
    row = msgspec.json.decode(_left(test, name).read_bytes(), type=ScaleRow)
    row = msgspec.structs.replace(row, caveats=(*row.caveats, _AGAIN))
    json_lines.add_records(_file(test), [KeptRow(_title(test), row, again=True)])


def kept_rows(test: RunningTest) -> list[KeptRow]:
    """The latest of each scale of the test, the smallest first."""
    return _latest(_file(test))


def siblings(test: RunningTest) -> dict[str, RunningTest]:
    """The runs of the same test that were collected, by the names of their scales."""
    title = _title(test)
    return {
        other.parameters[FIXTURE].name: other
        for other in test.others()
        if isinstance(other.parameters.get(FIXTURE), Scale) and _title(other) == title
    }


def tables(folder: Path) -> tuple[list[ScaleTable], int]:
    """One table for each test that ran at several scales, from the session's shared folder; and unreadable lines."""
    files = sorted((folder / SCALES).glob("*.jsonl"), key=lambda file: file.stat().st_mtime_ns)
    made, unreadable = [], 0
    for file in files:
        kept = _latest(file)
        unreadable += json_lines.read_records(file, KeptRow).unreadable
        if kept:
            rows = tuple(each.row for each in kept)
            made.append(ScaleTable(title=kept[0].title, rows=rows, law=fit_law(rows)))
    return made, unreadable


def _row(test: RunningTest, scale: Scale, measurement: Measurement, budget: Budget) -> ScaleRow:
    account = _account(test)
    mark = test.plan.scales
    return scale_row(
        scale,
        measurement,
        limit_bytes=memory_limit().bytes,
        budget=budget.peak_bytes,
        smaller=[kept.row for kept in kept_rows(test) if kept.row.scale.size_bytes < scale.size_bytes],
        breakdown=account and account.breakdown,
        tasks=account and account.tasks,
        features=scale_features(mark.predictors, scale) if mark else (),
    )


def _account(test: RunningTest) -> Account | None:
    """That of the one batch which the test ran with the fixture; several in a row are no plan of workers to go by."""
    executor = test.value("fallback_executor")
    if not isinstance(executor, RecordingExecutor) or len(executor.accounts) != 1:
        return None
    return executor.accounts[0]


def _title(test: RunningTest) -> str:
    """The test without its scale, its other parameters included."""
    others = {name: value for name, value in test.parameters.items() if name != FIXTURE}
    base = test.nodeid.partition("[")[0]
    return f"{base}[{', '.join(f'{name}={value!r}' for name, value in others.items())}]" if others else base


def _file(test: RunningTest) -> Path:
    folder = shared_folder(test.config) / SCALES
    folder.mkdir(exist_ok=True)
    return folder / f"{_short(_title(test))}.jsonl"


def _left(test: RunningTest, name: str) -> Path:
    return _file(test).with_suffix(f".{_short(name)}.json")


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _latest(file: Path) -> list[KeptRow]:
    latest = {kept.name: kept for kept in json_lines.read_records(file, KeptRow).records}
    return sorted(latest.values(), key=lambda kept: kept.row.scale.size_bytes)


_HOW_AGAIN = "  how       each scale run twice in a fresh interpreter, the second time measured"
_HOW_ISOLATED = "  how       each scale run once, in an interpreter of its own"


def judge_law(test: RunningTest, mark: ScalesMark, *, again: bool, strict: bool) -> Judgement:
    """Holds the rows of the test against the law of its marker.

    `again` allows runs in fresh interpreters. Where one of them does not pass, a broken law is inconclusive: it fails
    under `strict` only.
    """
    lacking: list[str] = []
    while True:
        kept = kept_rows(test)
        try:
            doubtful = _in_doubt(kept, mark) if again and not lacking else ()
        except MembudgetError as error:
            return Judgement(verdict="none", caveats=(f"the law was not judged: {error}",))
        if not doubtful:
            return _verdict(kept, mark, lacking, strict=strict)
        lacking = [name for name in doubtful if not _run_again(test, name)]


def _in_doubt(kept: list[KeptRow], mark: ScalesMark) -> tuple[str, ...]:
    return scales_in_doubt(
        [each.row for each in kept],
        mark.law,
        mark.at_most,
        first={each.name for each in kept if each.first},
        again={each.name for each in kept if each.again},
    )


def _run_again(test: RunningTest, name: str) -> bool:
    """Measures the scale in a fresh interpreter; whether its run there passed."""
    test.stop_clock()
    other = siblings(test).get(name)
    if other is None:
        return False
    with showing_progress(test.config, f"for its law: {name} again, in a fresh interpreter"):
        report = run_fresh(other, "scale", rehearse=True).reports.get("call")
    if report is None or not report.passed:
        return False
    take_row(test, name)
    return True


def _verdict(kept: list[KeptRow], mark: ScalesMark, lacking: list[str], *, strict: bool) -> Judgement:
    caveats = tuple(
        f"the law goes by the session's own run of {name}, which did not pass in a fresh interpreter"
        for name in lacking
    )
    try:
        assert_law([each.row for each in kept], mark.law, mark.at_most)
    except OverBudgetError as error:
        if lacking:
            text = "\n".join([str(error), *(f"  note      {caveat}" for caveat in caveats)])
            return Judgement(verdict="inconclusive", failed=strict, finding=text, caveats=caveats)
        how = _HOW_AGAIN if all(each.again for each in kept) else _HOW_ISOLATED
        return Judgement(verdict="over", failed=True, finding=f"{error}\n{how}")
    except MembudgetError as error:
        return Judgement(verdict="none", caveats=(f"the law was not judged: {error}",))
    return Judgement(verdict="within", caveats=caveats)
