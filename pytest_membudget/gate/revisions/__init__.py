"""Two revisions of a project held against each other, by fresh runs of both.

1. `git` reads revisions and puts each into a worktree of its own, outside the checkout;
2. `sequential` decides after each pair of runs whether a test is clear, and `compare` drives that;
3. `bisect` searches the commit between two revisions that a test regressed at.
"""
