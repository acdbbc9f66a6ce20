"""What do the numbers say? Pure functions of plain numbers, by the standard library alone.

1. Samples of one figure: `samples` has the middle, how sure it is, and whether two groups differ.
2. A figure that may grow with calls: `growth` decides, with a robust slope; `task_growth` does so for workers.
3. Peaks by size: `fitting` chooses a line or a bend, `bounds` says how sure that is, and
   `laws` reads growth with the scale of a job from it.
4. Peaks of tasks as they finish: `learning` chooses what to allocate for the next one, and never forgets a large one.
"""
