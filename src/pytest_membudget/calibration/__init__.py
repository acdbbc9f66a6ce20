"""Learn: from measured runs to predictions that state their confidence.

1. `fit_points` turns (size, peak) figures into a `Calibration`: γ, overhead, a central estimate and a bound;
2. a calibration is saved as JSON and found again by `load_calibration`;
3. `scales` run one job at several sizes, fit its law of growth, and foretell the next size before it runs.
"""

from __future__ import annotations

from pytest_membudget.calibration.model import Calibration, fit_points, load_calibration
from pytest_membudget.calibration.scales import (
    PRESETS,
    assert_law,
    check_law,
    chosen_scales,
    configured_scales,
    default_scales,
    fit_law,
    predict_next,
    scale_row,
)

__all__ = [
    "PRESETS",
    "Calibration",
    "assert_law",
    "check_law",
    "chosen_scales",
    "configured_scales",
    "default_scales",
    "fit_law",
    "fit_points",
    "load_calibration",
    "predict_next",
    "scale_row",
]
