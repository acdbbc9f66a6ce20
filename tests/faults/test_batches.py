"""Batches of inputs that do what inputs can do, while workers and the fork server are killed and stopped from outside.

Whatever happens: one outcome for each input, in order; each good input has its own result; what began has ended.
"""

import contextlib
import os
import random
import signal
import sys
import threading
import time

import faulty_jobs as jobs
import pytest

from pytest_membudget import ExecutorPolicy, FallbackExecutor
from pytest_membudget.measurement.process.children import descendants

pytestmark = [
    pytest.mark.slow,
    pytest.mark.processes,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(sys.platform != "linux", reason="signals and /proc as Linux has them"),
]

BATCHES = 40
INPUTS_EACH = 16
SERVERS = 3
"""Processes that stay with this one between batches: its fork server and what that needs."""


class Saboteur(threading.Thread):
    """Kills, or stops for a moment, one of this process's descendants now and then."""

    def __init__(self, seed):
        super().__init__(daemon=True)
        self._random = random.Random(seed)
        self.faults = 0
        self._over = threading.Event()

    def run(self):
        while not self._over.wait(self._random.uniform(0.05, 0.6)):
            living = descendants(os.getpid())
            if not living:
                continue
            victim = self._random.choice(living)
            with contextlib.suppress(OSError):
                if self._random.random() < 0.5:
                    os.kill(victim, signal.SIGKILL)
                else:
                    os.kill(victim, signal.SIGSTOP)
                    time.sleep(0.05)
                    os.kill(victim, signal.SIGCONT)
                self.faults += 1

    def end(self):
        self._over.set()
        self.join()


def inputs(chance):
    behaviours = chance.choices([*jobs.GOOD, *jobs.GOOD, *jobs.BAD], k=INPUTS_EACH)
    made = []
    for number, behaviour in enumerate(behaviours):
        item = (jobs.Text(behaviour), number) if chance.random() < 0.1 else (behaviour, number)
        made.append(jobs.OddItem(behaviour, number) if chance.random() < 0.1 else item)
    return behaviours, made


def left_after(seconds, before):
    """Processes that have come since `before`, when no more than the servers are left or the time is over."""
    deadline_s = time.monotonic() + seconds
    while True:
        left = [pid for pid in descendants(os.getpid()) if pid not in before]
        if len(left) <= SERVERS or time.monotonic() > deadline_s:
            return left
        time.sleep(0.05)


@pytest.mark.parametrize("sabotage", [False, True], ids=["by inputs", "from outside too"])
def test_every_input_has_one_outcome_and_everything_ends(tmp_path, chance, sabotage):
    before = {*descendants(os.getpid())}
    for batch_number in range(BATCHES):
        behaviours, items = inputs(chance)
        policy = ExecutorPolicy(
            timeout_s=2.0, retries=1, small_batch=0, dead_letters=tmp_path / "failed.jsonl"
        )
        saboteur = Saboteur(chance.random())
        with FallbackExecutor(2, levels=("process",), budget="2 GB", policy=policy) as executor:
            if sabotage:
                saboteur.start()
            try:
                batch = executor.run(jobs.do, items)
            finally:
                if sabotage:
                    saboteur.end()
        assert len(batch.outcomes) == INPUTS_EACH, batch_number
        for number, (behaviour, item, outcome) in enumerate(
            zip(behaviours, items, batch.outcomes, strict=True)
        ):
            assert outcome.item is item
            if sabotage and behaviour == "stop" and outcome.ok:
                continue  # it was continued from outside
            if behaviour in jobs.BAD:
                assert not outcome.ok, (behaviour, outcome.value)
            elif outcome.ok:
                assert outcome.value == number
            else:
                assert sabotage, (behaviour, str(outcome))
                assert outcome.cause in {"killed", "timeout"}, (behaviour, str(outcome))
        assert len(left_after(20, before)) <= SERVERS
