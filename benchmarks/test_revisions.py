"""Two revisions: how often is an unchanged suite called wrong, and how many runs does a test take?

Runs are drawn from the recorded noise of `data/noise_samples.json`, as if each test of a suite of fifty were one of its twenty pieces
of work. The comparison itself is the real one.
"""

import json
import random
import statistics
from pathlib import Path

from pytest_membudget.gate.revisions.compare import DEFAULT_ERROR_RATE, Comparing
from pytest_membudget.stats.bounds import rate_interval

SAMPLES = json.loads(Path(__file__).with_name("data").joinpath("noise_samples.json").read_text())
NAMES = list(SAMPLES)
SUITE = 50
MIB = 2**20


def interval(hits, trials):
    low, high = rate_interval(hits, trials)
    return f"{hits / trials:.2%} ({low:.2%} to {high:.2%})"


class Drawn:
    """A revision of a suite; `worse` are the tests that use 5% + 1 MiB more."""

    def __init__(self, works, chance, worse=frozenset()):
        self.works, self.chance, self.worse = works, chance, worse

    def run(self, nodeids, seed):
        peaks = {name: self.chance.choice(SAMPLES[self.works[name]]) for name in nodeids or self.works}
        return {
            name: round(peak * 1.05) + MIB if name in self.worse else peak for name, peak in peaks.items()
        }


def suite(chance):
    return {f"t{index}": chance.choice(NAMES) for index in range(SUITE)}


def test_an_unchanged_suite_is_rarely_called(figure):
    chance = random.Random(21)
    trials = 1_000
    called, runs = 0, []
    for _ in range(trials):
        works = suite(chance)
        found = Comparing(Drawn(works, chance), Drawn(works, chance)).compare()
        called += any(test.verdict in {"regressed", "improved"} for test in found.tests)
        runs.append(statistics.median(test.runs for test in found.tests))
    figure(
        "unchanged suite of 50: any test called",
        interval(called, trials),
        f"at most {DEFAULT_ERROR_RATE:.0%}",
    )
    figure("runs a test, median", f"{statistics.median(runs):.0f}", "at most 4")
    assert called / trials <= 0.015
    assert statistics.median(runs) <= 4


def test_a_regression_of_5_percent_and_a_mebibyte_is_found(figure):
    chance = random.Random(22)
    quiet: list[bool] = []
    racing: list[bool] = []
    for _ in range(150):
        works = suite(chance)
        worse = frozenset(chance.sample(list(works), 3))
        found = Comparing(Drawn(works, chance), Drawn(works, chance, worse)).compare()
        for test in found.tests:
            if test.nodeid in worse:
                group = racing if works[test.nodeid].startswith("threads_") else quiet
                group.append(test.verdict == "regressed")
    everything = quiet + racing
    figure("regression of 5% + 1 MiB found, all", interval(sum(everything), len(everything)), "at least 95%")
    figure("the same, without racing threads", interval(sum(quiet), len(quiet)), "at least 95%")
    figure("the same, racing threads alone", interval(sum(racing), len(racing)))
    assert sum(everything) / len(everything) >= 0.93
    assert sum(quiet) / len(quiet) >= 0.95
