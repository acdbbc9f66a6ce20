"""What do the numbers say? Pure functions of plain numbers, by the standard library alone.

1. Samples of one figure: `samples` has the middle, how sure it is, and whether two groups differ; `change_points` finds where a
   series of them changed for good.
2. A figure that may grow with calls: `growth` decides, with a robust slope; `task_growth` does so for workers.
3. Peaks by size: `fitting` chooses a line or a bend and reads growth with the scale of a job from it, `bounds` says how sure that
   is, and `surfaces` has several predictors.
4. Peaks of tasks as they finish: `learning` chooses what to allocate for the next one, by the vote of `allocation_models`, and
   never forgets a large one.
"""
