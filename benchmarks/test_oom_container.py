"""Does a batch keep what has ended well in a container that is too small for its tasks?

BATCHES (10) programs in a control group of 150 MB, each with ten tasks of 100 MB, which do not fit beside the program, between ten
of 5 MB. Lost is an outcome of a small one that the program does not tell, because the kernel ended the program itself.
"""

import json
import os
import sys

import pytest
from memory_group import Group, can_be_made

BATCHES = int(os.environ.get("BATCHES", "10"))
LIMIT_BYTES = 150 << 20

pytestmark = pytest.mark.skipif(not can_be_made(), reason="needs control groups of version 1, as root")

PROGRAM = """
import json
from pytest_membudget import ExecutorPolicy, FallbackExecutor

def task(megabytes):
    return len(bytearray(b"x") * (megabytes << 20))

if __name__ == "__main__":
    with FallbackExecutor(4, policy=ExecutorPolicy(timeout_s=20)) as executor:
        batch = executor.run(task, [100, 5] * 10)
    print(json.dumps([[outcome.item, outcome.ok] for outcome in batch.outcomes]))
"""


@pytest.mark.timeout(3600)
def test_what_ended_well_is_told(tmp_path, figure):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    lost, ended, kills = 0, 0, 0
    for _ in range(BATCHES):
        group = Group(LIMIT_BYTES)
        try:
            out, _ = group.start(sys.executable, program).communicate(timeout=300)
            told = json.loads(out) if out else []
            kills += group.killed()
        finally:
            group.remove()
        ended += len(told) == 20
        lost += 10 - sum(ok for size, ok in told if size == 5)
    figure("batches that came to their end", f"{ended} of {BATCHES}", "all")
    figure("processes that the kernel ended", str(kills))
    figure("small tasks whose outcome was lost", f"{lost} of {10 * BATCHES}", "none")
    assert (ended, lost) == (BATCHES, 0)
