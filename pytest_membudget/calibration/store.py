"""Where calibrations are kept by name, and whether one that is found still holds.

They live in the project, in `.membudget/calibrations/NAME.json`, so that they can be committed beside the baseline.
"""

from __future__ import annotations

import hashlib
import importlib.util
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from pytest_membudget.calibration.law import checked_share
from pytest_membudget.calibration.model import Calibration
from pytest_membudget.calibration.worker import digest_source
from pytest_membudget.errors import UnreadableFileError, UsageError
from pytest_membudget.records.calibration import CalibrationFile, CalibrationPoint
from pytest_membudget.records.report import Environment
from pytest_membudget.records.storage import read_json
from pytest_membudget.runtime.prediction.predictors import BYTES, Predictor, Predictors
from pytest_membudget.units import Size, parse_size

FOLDER = Path(".membudget") / "calibrations"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", re.ASCII)


def calibration_path(name: str, root: Path | None = None) -> Path:
    """The file of the calibration `name` under `root` (here by default).

    Raises:
        UsageError: the name is not letters, digits, dots, dashes and underscores.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!r} is not a name; write letters, digits, dots, dashes and underscores")
    return (root or Path()) / FOLDER / f"{name}.json"


def named_calibration(
    name: str, root: Path | None = None, predictors: Mapping[str, Predictor] | None = None
) -> Calibration:
    """The calibration kept as `name`; `predictors` as in `load_calibration`.

    Raises:
        UsageError: there is none; the message lists those there are.
        UnreadableFileError: the file is not a calibration.
    """
    path = calibration_path(name, root)
    try:
        return load_calibration(path, predictors)
    except FileNotFoundError:
        kept = ", ".join(sorted(other.stem for other in path.parent.glob("*.json"))) or "none yet"
        raise UsageError(
            f"there is no calibration {name!r} in {path.parent} (there: {kept}); "
            f"run: membudget calibrate MODULE:FUNCTION --save {name}"
        ) from None


def save_named(calibration: Calibration, name: str, root: Path | None = None) -> Path:
    """Keeps the calibration as `name`; says where.

    Raises:
        OSError: the folder cannot be made or written.
    """
    path = calibration_path(name, root)
    path.parent.mkdir(parents=True, exist_ok=True)
    calibration.save(path)
    return path


def check_fresh(
    calibration: Calibration, environment: Environment, fn: Callable[..., Any] | None = None
) -> tuple[str, ...]:
    """What has changed since the calibration, as plain sentences; empty where it still holds.

    `environment` is that of here and now. The source is that of `fn`, or of the module that the calibration names,
    where that can be found without importing it.
    """
    found = [
        f"it was taken with {what} {then!r}, here it is {now!r}"
        for what, then, now in differences(calibration.file.environment, environment)
    ]
    digest = digest_source(fn) if fn is not None else _digest_named(calibration.file.function)
    if digest and calibration.file.source_digest and digest != calibration.file.source_digest:
        found.append(f"the source of {calibration.file.function} has changed since; calibrate again")
    return tuple(f"foreign or stale calibration: {sentence}" for sentence in found)


def _digest_named(function: str) -> str:
    """The digest of the module in "module:function"; empty where there is none to be found."""
    try:
        spec = importlib.util.find_spec(function.partition(":")[0])
    except (ImportError, ValueError, AttributeError):
        return ""
    if spec is None or not spec.has_location or not spec.origin or not Path(spec.origin).is_file():
        return ""
    return hashlib.sha256(Path(spec.origin).read_bytes()).hexdigest()


def differences(then: Environment, now: Environment) -> list[tuple[str, str, str]]:
    """What may change what a task takes: it depends neither on the kernel's version nor on the number of cores."""
    return [each for each in then.differences(now) if each[0] not in {"kernel", "cores"}]


def fit_points(
    points: Iterable[tuple[Size | Mapping[str, float], Size]],
    content: float | str = 0.95,
    confidence: float | str = 0.95,
) -> Calibration:
    """The calibration that follows from figures one has: (size, peak) of at least three tasks.

    In place of a size there may be a mapping of up to three predictors, such as ``{"rows": 2000, "columns": 12}``; the
    same names in every point.

    Raises:
        UsageError: fewer than three points, or content or confidence not between 0 and 1.
        ValueError: a size or a peak that cannot be read.
    """
    given = list(points)
    names = next((tuple(size) for size, _ in given if isinstance(size, Mapping)), ())
    values = [_values_of(size, names) for size, _ in given] if names else []
    return complete(
        CalibrationFile(
            version=2 if names else 1,
            points=tuple(CalibrationPoint(_size_in_bytes(size), _whole(peak)) for size, peak in given),
            predictors=names,
            values=tuple(tuple(named.values()) for named in values),
            content=checked_share("content", content),
            confidence=checked_share("confidence", confidence),
        )
    )


def load_calibration(
    path: str | os.PathLike[str], predictors: Mapping[str, Predictor] | None = None
) -> Calibration:
    """The calibration saved at `path`.

    Args:
        path: of the file. Nothing that it names is imported.
        predictors: the functions of its predictors, so that it can be asked about items; without them it takes
            mappings. The size in bytes needs none.

    Raises:
        FileNotFoundError: there is none.
        UnreadableFileError: the file is not a calibration, or a newer version of one.
        UsageError: it has no predictor of that name.
    """
    file = read_json(path, CalibrationFile, what="a calibration")
    try:
        found = Calibration(file)
    except ValueError as error:
        raise UnreadableFileError(f"{path} is not a calibration: {error}") from None
    return Calibration(found.file, predictors) if predictors else found


def complete(file: CalibrationFile, predictors: Mapping[str, Predictor | None] | None = None) -> Calibration:
    """The calibration of `file`, its figures for readers filled in from the fit."""
    found = Calibration(file, predictors)
    # The law follows from the points, so what is filled in needs no other fit.
    found.file = msgspec.structs.replace(
        found.file, gamma=found.gamma, overhead_bytes=found.overhead_bytes, curved=found.curved
    )
    return found


def _values_of(size: Any, names: tuple[str, ...]) -> dict[str, float]:
    if not isinstance(size, Mapping) or set(size) != set(names):
        raise UsageError(
            f"a point has {size!r} where others have {', '.join(names)}; give the same predictors in each"
        )
    return Predictors(dict.fromkeys(names)).values(size)


def _size_in_bytes(size: Any) -> int:
    return _whole(size.get(BYTES, 0)) if isinstance(size, Mapping) else _whole(size)


def _whole(size: Size | float) -> int:
    if isinstance(size, float):
        if not math.isfinite(size):
            raise UsageError(f"{size} is not a number of bytes; give what was measured")
        size = round(size)
    return parse_size(size)
