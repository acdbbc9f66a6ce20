"""Judge: is what a test took what it may take?

1. `judge` holds one measurement against its `Budget`, `judge_growth` a growth against its allowance;
2. `status_of` grades one scale of a job against the limit and its budget;
3. each answers with a record: a verdict, a message that explains itself, and the caveats.

Nothing here measures or prints.
"""

from __future__ import annotations

from pytest_membudget.gate.growth import judge_growth
from pytest_membudget.gate.judge import judge
from pytest_membudget.gate.status import TARGET_SHARE, status_of
from pytest_membudget.records.judgement import Budget, Judgement, Verdict

__all__ = ["TARGET_SHARE", "Budget", "Judgement", "Verdict", "judge", "judge_growth", "status_of"]
