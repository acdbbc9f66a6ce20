"""Judge: is what a test took what it may take, and what it used to take?

1. `judge` holds one measurement against its `Budget`, `judge_growth` a growth against its allowance,
   `status_of` one scale of a job against the limit and its budget;
2. `load_baseline` reads what was committed, `check_environment` tells whether it was taken elsewhere, and
   `match_baseline` which test is which;
3. `next_step` asks for fresh samples until they agree, and `compare_test` with `judge_comparison` says what
   they showed;
4. `make_baseline` and `save_baseline` accept what was measured.

Nothing here measures or prints: a verdict is a record with a message that explains itself and its caveats.
"""

from __future__ import annotations

from pytest_membudget.gate.baseline import load_baseline, make_baseline, save_baseline
from pytest_membudget.gate.comparison import ACCEPT_COMMAND, compare_test, judge_comparison
from pytest_membudget.gate.decision import DEFAULT_SAMPLES, DEFAULT_TOLERANCE, Step, next_step
from pytest_membudget.gate.environment import check_environment, environment_differences
from pytest_membudget.gate.growth import judge_growth
from pytest_membudget.gate.judge import judge
from pytest_membudget.gate.matching import Matching, match_baseline
from pytest_membudget.gate.status import TARGET_SHARE, status_of
from pytest_membudget.records.judgement import Budget, Judgement, Verdict

__all__ = [
    "ACCEPT_COMMAND",
    "DEFAULT_SAMPLES",
    "DEFAULT_TOLERANCE",
    "TARGET_SHARE",
    "Budget",
    "Judgement",
    "Matching",
    "Step",
    "Verdict",
    "check_environment",
    "compare_test",
    "environment_differences",
    "judge",
    "judge_comparison",
    "judge_growth",
    "load_baseline",
    "make_baseline",
    "match_baseline",
    "next_step",
    "save_baseline",
    "status_of",
]
