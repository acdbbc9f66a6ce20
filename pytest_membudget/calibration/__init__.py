"""Learn: from measured runs to predictions that state their confidence.

1. `calibrate` runs a function on files of several sizes, each run in a fresh interpreter; `fit_points` takes figures
   that one has already;
2. either gives a `Calibration`: γ, overhead, a central estimate and a bound, and an estimator that starts from them;
3. it is kept as JSON, by path or by name in the project, and `check_fresh` says whether it still holds;
4. `calibrate_in_flight` finds the largest number of tasks in flight that stays under a share of the limit;
5. `scales` run one job at several sizes; `growth_law` fits the law of their totals, and the next size is foretold
   before it runs: by what the tasks of the smaller ones took (`side_by_side`), else by that law.

Names are loaded when first used, because fresh interpreters import from here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_membudget.lazy import names_on_demand

if TYPE_CHECKING:
    from pytest_membudget.calibration.campaign import calibrate as calibrate
    from pytest_membudget.calibration.cold_rows import scales_in_doubt as scales_in_doubt
    from pytest_membudget.calibration.figures import fit_points as fit_points
    from pytest_membudget.calibration.figures import load_calibration as load_calibration
    from pytest_membudget.calibration.growth_law import assert_law as assert_law
    from pytest_membudget.calibration.growth_law import check_law as check_law
    from pytest_membudget.calibration.growth_law import fit_law as fit_law
    from pytest_membudget.calibration.growth_law import predict_next as predict_next
    from pytest_membudget.calibration.in_flight import calibrate_in_flight as calibrate_in_flight
    from pytest_membudget.calibration.model import Calibration as Calibration
    from pytest_membudget.calibration.scales import run_scales as run_scales
    from pytest_membudget.calibration.scales import scale_row as scale_row
    from pytest_membudget.calibration.shapes import PRESETS as PRESETS
    from pytest_membudget.calibration.shapes import chosen_scales as chosen_scales
    from pytest_membudget.calibration.shapes import configured_scales as configured_scales
    from pytest_membudget.calibration.shapes import default_scales as default_scales
    from pytest_membudget.calibration.side_by_side import task_figures as task_figures
    from pytest_membudget.calibration.store import check_fresh as check_fresh
    from pytest_membudget.calibration.store import named_calibration as named_calibration
    from pytest_membudget.calibration.store import save_named as save_named

_MODULE_OF = {
    "PRESETS": "shapes",
    "Calibration": "model",
    "assert_law": "growth_law",
    "calibrate": "campaign",
    "calibrate_in_flight": "in_flight",
    "check_fresh": "store",
    "check_law": "growth_law",
    "chosen_scales": "shapes",
    "configured_scales": "shapes",
    "default_scales": "shapes",
    "fit_law": "growth_law",
    "fit_points": "figures",
    "load_calibration": "figures",
    "named_calibration": "store",
    "predict_next": "growth_law",
    "run_scales": "scales",
    "save_named": "store",
    "scale_row": "scales",
    "scales_in_doubt": "cold_rows",
    "task_figures": "side_by_side",
}

__all__ = sorted(_MODULE_OF)  # noqa: PLE0605 - every name is text

__getattr__ = names_on_demand(__name__, _MODULE_OF)
