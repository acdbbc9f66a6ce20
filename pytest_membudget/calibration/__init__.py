"""Learn: from measured runs to predictions that state their confidence.

1. `calibrate` runs a function on files of several sizes, each run in a fresh interpreter; `fit_points` takes figures
   that one has already;
2. either gives a `Calibration`: γ, overhead, a central estimate and a bound, and an estimator that starts from them;
3. it is kept as JSON, by path or by name in the project, and `check_fresh` says whether it still holds;
4. `calibrate_in_flight` finds the largest number of tasks in flight that stays under a share of the limit;
5. `scales` run one job at several sizes; `growth_law` fits the law of their totals, and the next size is foretold
   before it runs: by what the tasks of the smaller ones took (`side_by_side`), else by that law.
"""
