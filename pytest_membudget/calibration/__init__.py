"""Learn: from measured runs to predictions that state their confidence.

1. `run_loop` holds `calibrate`: it runs a function on inputs of several sizes, each run in a fresh interpreter;
   `store.fit_points` takes figures that one has already;
2. either gives a `model.Calibration`: γ, overhead, a central estimate and a bound, and an estimator that starts from them;
   `law` chooses and judges what it depends on: the size in bytes, or predictors;
3. `store` keeps it as JSON, by path or by name in the project, and `check_fresh` says whether it still holds;
4. `in_flight` finds the largest number of tasks in flight that stays under a share of the limit;
5. `scales` runs one job at several sizes; `growth_law` fits the law of their totals, and the next size is predicted
   before it runs: by what the tasks of the smaller ones took and how many run at once, else by that law;
6. `other_systems` asks Slurm, Kubernetes and others for memory, and learns from what they recorded.
"""

from __future__ import annotations

from pytest_membudget.lazy import names_on_demand

# What programs import from here, beside the public names of the package; loaded on demand, as fresh interpreters begin here.
__getattr__ = names_on_demand(
    __name__,
    {
        "check_fresh": "store",
        "named_calibration": "store",
        "run_scales": "scales",
        "save_named": "store",
    },
)
