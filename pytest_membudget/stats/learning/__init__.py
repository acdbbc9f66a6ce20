"""Learns from finished tasks how much memory to allocate for the next one.

1. `models` are simple answers to "what does a task of this size take?": a constant, lines, a power, neighbours. The offset
   of each is set in hindsight: the first allocation, and those after it runs out, that would have wasted least on
   the tasks seen, with room for a task larger than any of them;
2. `learner` lets the models vote, each as strongly as it would have wasted little, and forgets when the
   workload changes.
"""

from __future__ import annotations

from pytest_membudget.stats.learning.learner import Aim, AllocationLearner, Learner

__all__ = ["Aim", "AllocationLearner", "Learner"]
