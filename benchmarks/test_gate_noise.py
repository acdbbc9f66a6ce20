"""How often is the gate wrong? 60 fresh samples of each of 20 tests, resampled into 10,000 suites.

The samples are those of `noise_suite.py`, kept in `data/noise_samples.json`; take them again on another machine:
`python benchmarks/noise_suite.py --all 60 benchmarks/data/noise_samples.json`.
"""

import json
import math
import random
from pathlib import Path

import pytest

from pytest_membudget.gate.comparison import next_step
from pytest_membudget.plugin.baseline_gate import MOST_FORKS
from pytest_membudget.records.report import TestRecord

SUITES = 10_000
SAMPLES = json.loads(Path(__file__).with_name("data").joinpath("noise_samples.json").read_text())
MIB = 1024 * 1024
FORK_CHANCE = random.Random(9)
STEADY = [name for name in SAMPLES if not name.startswith("threads_")]


def finding(name, drawn, base_samples, worse=None):
    """What the gate says of one test: `drawn` are one measurement for the base, its samples, and the new ones."""
    base = TestRecord(
        nodeid="t", outcome="passed", peak_bytes=drawn[0], samples_bytes=tuple(drawn[1 : 1 + base_samples])
    )
    first, *stream = drawn[1 + base_samples :]
    forks = FORK_CHANCE.sample(SAMPLES[name], MOST_FORKS)
    if worse is not None:
        first, stream, forks = worse(first), list(map(worse, stream)), list(map(worse, forks))
    # Forks first, which only acquit; then fresh interpreters.
    for runs in (forks, stream):
        taken: list[int] = []
        while (step := next_step(base, first, taken)) == "rerun" and len(taken) < len(runs):
            taken.append(runs[len(taken)])
        if step == "same":
            break
    return step


def interval(hits, trials):
    """Wilson's 95% interval for a share."""
    share, z = hits / trials, 1.96
    middle = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials**2)) / (1 + z * z / trials)
    return f"{share:.2%} ({max(0, middle - half):.2%} to {min(1, middle + half):.2%})"


def a_fifth_and_two_mebibytes(peak_bytes):
    return round(peak_bytes * 1.2) + 2 * MIB


def share_of_failing_suites(names, base_samples):
    chance = random.Random(7)
    failed = 0
    for _ in range(SUITES):
        draws = [(name, chance.sample(SAMPLES[name], base_samples + 7)) for name in names]
        failed += any(finding(name, drawn, base_samples) == "regressed" for name, drawn in draws)
    return failed


def share_of_caught_regressions(names, base_samples):
    chance = random.Random(8)
    caught = 0
    for _ in range(SUITES):
        name = chance.choice(names)
        drawn = chance.sample(SAMPLES[name], base_samples + 7)
        caught += finding(name, drawn, base_samples, a_fifth_and_two_mebibytes) == "regressed"
    return caught


def test_a_suite_that_did_not_change_passes_and_a_regression_of_a_fifth_is_caught(figure):
    failed = share_of_failing_suites(list(SAMPLES), 5)
    caught = share_of_caught_regressions(list(SAMPLES), 5)
    figure("unchanged suite of 20 fails", interval(failed, SUITES), "at most 0.5%")
    figure("regression of 20% + 2 MiB caught", interval(caught, SUITES), "at least 99%")
    assert failed / SUITES <= 0.005
    assert caught / SUITES >= 0.99


@pytest.mark.parametrize(
    ("which", "names"), [("all 20", list(SAMPLES)), ("without the racing threads", STEADY)]
)
def test_what_a_baseline_without_fresh_samples_is_worth(figure, which, names):
    failed, caught = share_of_failing_suites(names, 0), share_of_caught_regressions(names, 0)
    figure(f"one figure a test as baseline, {which}: unchanged suite fails", interval(failed, SUITES))
    figure(f"one figure a test as baseline, {which}: regression caught", interval(caught, SUITES))
    if names is STEADY:
        assert failed / SUITES <= 0.005
        assert caught / SUITES >= 0.99


def test_the_samples_are_what_they_claim_to_be(figure):
    spreads = sorted((max(peaks) - min(peaks)) / max(1, min(peaks)) for peaks in SAMPLES.values())
    figure("scatter (largest less least), median test", f"{spreads[len(spreads) // 2]:.1%}")
    figure("scatter (largest less least), widest test", f"{spreads[-1]:.1%}")
    assert len(SAMPLES) == 20
    assert all(len(peaks) >= 60 for peaks in SAMPLES.values())
