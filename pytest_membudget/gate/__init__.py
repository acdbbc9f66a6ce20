"""Judge: is what a test took what it may take, and what it used to take?

1. `judge` holds one measurement against its `Budget`, `judge_growth` a growth against its allowance,
   `status_of` one scale of a job against the limit and its budget;
2. `load_baseline` reads what was committed, `check_environment` tells whether it was taken elsewhere, and
   `match_baseline` which test is which;
3. `next_step` asks for fresh samples until they agree, and `compare_test` with `judge_comparison` says what
   they showed;
4. `make_baseline` and `save_baseline` accept what was measured.

Nothing here measures or prints: a verdict is a record with a message that explains itself and its caveats. Names are
loaded when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_membudget.lazy import names_on_demand

if TYPE_CHECKING:
    from pytest_membudget.gate.baseline import carried_over as carried_over
    from pytest_membudget.gate.baseline import load_baseline as load_baseline
    from pytest_membudget.gate.baseline import make_baseline as make_baseline
    from pytest_membudget.gate.baseline import save_baseline as save_baseline
    from pytest_membudget.gate.budgets import judge as judge
    from pytest_membudget.gate.comparison import ACCEPT_COMMAND as ACCEPT_COMMAND
    from pytest_membudget.gate.comparison import compare_test as compare_test
    from pytest_membudget.gate.comparison import judge_comparison as judge_comparison
    from pytest_membudget.gate.comparison import judge_undecided as judge_undecided
    from pytest_membudget.gate.decision import DEFAULT_SAMPLES as DEFAULT_SAMPLES
    from pytest_membudget.gate.decision import DEFAULT_TOLERANCE as DEFAULT_TOLERANCE
    from pytest_membudget.gate.decision import Step as Step
    from pytest_membudget.gate.decision import next_step as next_step
    from pytest_membudget.gate.environment import check_environment as check_environment
    from pytest_membudget.gate.environment import environment_differences as environment_differences
    from pytest_membudget.gate.environment import in_short as in_short
    from pytest_membudget.gate.growth import judge_growth as judge_growth
    from pytest_membudget.gate.matching import Matching as Matching
    from pytest_membudget.gate.matching import match_baseline as match_baseline
    from pytest_membudget.gate.matching import moved_tests as moved_tests
    from pytest_membudget.gate.status import TARGET_SHARE as TARGET_SHARE
    from pytest_membudget.gate.status import status_of as status_of

_MODULE_OF = {
    "ACCEPT_COMMAND": "comparison",
    "DEFAULT_SAMPLES": "decision",
    "DEFAULT_TOLERANCE": "decision",
    "Matching": "matching",
    "Step": "decision",
    "TARGET_SHARE": "status",
    "carried_over": "baseline",
    "check_environment": "environment",
    "compare_test": "comparison",
    "environment_differences": "environment",
    "in_short": "environment",
    "judge": "budgets",
    "judge_comparison": "comparison",
    "judge_growth": "growth",
    "judge_undecided": "comparison",
    "load_baseline": "baseline",
    "make_baseline": "baseline",
    "match_baseline": "matching",
    "moved_tests": "matching",
    "next_step": "decision",
    "save_baseline": "baseline",
    "status_of": "status",
}

__all__ = sorted(_MODULE_OF)  # noqa: PLE0605 - every name is text

__getattr__ = names_on_demand(__name__, _MODULE_OF)
