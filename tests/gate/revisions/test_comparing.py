import random

import pytest

from pytest_membudget.gate.revisions.compare import Comparing

MIB = 2**20


class Scripted:
    """A revision whose tests use what `peak(nodeid)` says, in MiB; None where they do not pass."""

    def __init__(self, peaks, *, seed=1, clock=None, alone=None):
        self.peaks, self.chance, self.clock, self.alone = peaks, random.Random(seed), clock, alone or {}
        self.asked = []

    def run(self, nodeids, seed):
        self.asked.append((nodeids, seed))
        if self.clock is not None:
            self.clock.now_s += 10
        names = self.peaks if nodeids is None else nodeids
        levels = {
            name: self.peaks[name] if nodeids is None else self.alone.get(name, self.peaks[name])
            for name in names
        }
        return {
            name: round(level * MIB * self.chance.gauss(1, 0.002))
            for name, level in levels.items()
            if level is not None
        }


class Clock:
    now_s = 0.0

    def __call__(self):
        return self.now_s


def compared(base, head, **options):
    found = Comparing(base, head, **options).compare()
    return found, {test.nodeid: test for test in found.tests}


def test_what_did_not_change_takes_two_runs_a_side():
    base, head = Scripted({"a": 40, "b": 20}), Scripted({"a": 40, "b": 20}, seed=2)
    found, tests = compared(base, head)
    assert [test.verdict for test in found.tests] == ["equivalent"] * 2
    assert (found.sessions, tests["a"].runs, found.suspected) == (4, 4, 0)


def test_what_changed_is_run_again_alone_and_called():
    base, head = Scripted({"a": 40, "b": 20, "c": 30}), Scripted({"a": 40, "b": 22, "c": 20}, seed=2)
    found, tests = compared(base, head)
    assert [(test.nodeid, test.verdict) for test in found.tests] == [
        ("b", "regressed"),
        ("c", "improved"),
        ("a", "equivalent"),
    ]
    assert found.suspected == 2
    assert tests["b"].change == pytest.approx(0.1, abs=0.01)
    # The figures of the screening, which chose these tests, are not used again.
    assert len(tests["b"].base_samples_bytes) == 6
    assert tests["b"].runs == 4 + 12
    assert base.asked[2][0] == ["b", "c"]


def test_both_sides_of_a_pair_have_one_seed_and_change_their_order():
    order = []
    sides = [Scripted({"a": 40}), Scripted({"a": 50})]
    for name, side in zip(("base", "head"), sides, strict=True):
        run = side.run
        side.run = lambda nodeids, seed, name=name, run=run: order.append((name, seed)) or run(nodeids, seed)
    compared(*sides)
    assert order[:4] == [("base", 1), ("head", 1), ("head", 2), ("base", 2)]


def test_tests_of_one_side_alone_are_named():
    found, _ = compared(Scripted({"a": 1, "old": 1}), Scripted({"a": 1, "new": 1}))
    assert (found.only_base, found.only_head) == (("old",), ("new",))


def test_a_test_that_fails_without_the_others_is_inconclusive_and_says_where():
    _, tests = compared(Scripted({"a": 40}), Scripted({"a": 50}, alone={"a": None}))
    assert tests["a"].verdict == "inconclusive"
    assert "did not pass at the head" in tests["a"].caveats[0]


def test_the_time_ends_what_is_open():
    clock = Clock()
    base, head = (Scripted({"a": level}, clock=clock) for level in (40, 50))
    # Two pairs of screening and two of confirmation, of 20 s each; the last ends at the very end.
    found, tests = compared(base, head, budget_s=80, clock=clock)
    assert found.duration_s == 80
    assert tests["a"].verdict == "inconclusive"
    assert "the time was over" in tests["a"].caveats[0]


def test_nothing_measured_at_either_side_is_no_test():
    found, _ = compared(Scripted({}), Scripted({}))
    assert found.tests == ()
