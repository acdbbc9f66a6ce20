"""What a calibration has to be, however it came about: measured here, given as figures, or read from a file."""

from __future__ import annotations

from pytest_membudget.errors import UsageError
from pytest_membudget.records.calibration import CalibrationFile
from pytest_membudget.units import format_count, parse_share, parse_size

LEAST_POINTS = 3


def checked_share(name: str, share: float | str) -> float:
    """A share that leaves room for doubt.

    Raises:
        ValueError: not a share, or all of it.
    """
    try:
        fraction = parse_share(share)
    except ValueError as error:
        raise UsageError(f"{name}: {error}") from None
    if fraction >= 1:
        raise UsageError(f"{name}={share!r} promises too much; write a share below 100%, such as 0.95")
    return fraction


def check_file(file: CalibrationFile) -> None:
    """Looks at all that a fit relies on.

    Raises:
        ValueError: what is wrong with it.
    """
    if len(file.points) < LEAST_POINTS:
        raise UsageError(
            f"{format_count(len(file.points), 'point')} cannot tell how much peaks scatter; measure at least {LEAST_POINTS} tasks"
        )
    for name, share in (("content", file.content), ("confidence", file.confidence)):
        checked_share(name, share)
    for point in file.points:
        parse_size(point.size_bytes), parse_size(point.peak_bytes)
    if file.durations_s and len(file.durations_s) != len(file.points):
        raise UsageError(f"{len(file.durations_s)} durations do not belong to {len(file.points)} points")
