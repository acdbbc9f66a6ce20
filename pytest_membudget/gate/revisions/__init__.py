"""Two revisions of a project compared, by fresh runs of both.

1. `git` reads revisions and puts each into a worktree of its own, outside the checkout; `runs` runs the tests there;
2. `compare` decides after each pair of runs whether a test is clear, and searches the commit between two revisions;
3. `stacks` says which call stacks grew.
"""
