"""Calibrations from figures that one has already: given as points, or read from a file."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable

import msgspec

from pytest_membudget.calibration.checks import checked_share
from pytest_membudget.calibration.model import Calibration
from pytest_membudget.errors import UnreadableFileError, UsageError
from pytest_membudget.records.calibration import CalibrationFile, CalibrationPoint
from pytest_membudget.records.storage import read_json
from pytest_membudget.units import Size, parse_size


def fit_points(
    points: Iterable[tuple[Size, Size]], content: float | str = 0.95, confidence: float | str = 0.95
) -> Calibration:
    """The calibration that follows from figures one has: (size, peak) of at least three tasks.

    Raises:
        UsageError: fewer than three points, or content or confidence not between 0 and 1.
        ValueError: a size or a peak that cannot be read.
    """
    pairs = tuple(CalibrationPoint(_whole(size), _whole(peak)) for size, peak in points)
    return complete(
        CalibrationFile(
            points=pairs,
            content=checked_share("content", content),
            confidence=checked_share("confidence", confidence),
        )
    )


def load_calibration(path: str | os.PathLike[str]) -> Calibration:
    """The calibration saved at `path`.

    Raises:
        FileNotFoundError: there is none.
        UnreadableFileError: the file is not a calibration, or a newer version of one.
    """
    file = read_json(path, CalibrationFile, what="a calibration")
    try:
        return Calibration(file)
    except ValueError as error:
        raise UnreadableFileError(f"{path} is not a calibration: {error}") from None


def complete(file: CalibrationFile) -> Calibration:
    """The calibration of `file`, its figures for readers filled in from the fit."""
    fitted = Calibration(file)
    return Calibration(
        msgspec.structs.replace(
            file, gamma=fitted.gamma, overhead_bytes=fitted.overhead_bytes, curved=fitted.curved
        )
    )


def _whole(size: Size | float) -> int:
    if isinstance(size, float):
        if not math.isfinite(size):
            raise UsageError(f"{size} is not a number of bytes; give what was measured")
        size = round(size)
    return parse_size(size)
