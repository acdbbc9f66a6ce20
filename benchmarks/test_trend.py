"""How often is the trend wrong, how soon does it tell, and how long does a year take?

Series are drawn from the noise of `data/noise_samples.json` (20 pieces of work, 60 fresh peaks each; two of them race threads and jump by
up to 58%). False alarms are counted as a user meets them: the trend is asked after every commit of a year, and one wrong
answer is enough.
"""

import datetime
import json
import math
import random
import time
from pathlib import Path

import pytest
from tables import print_table

from pytest_membudget.gate.history import open_history
from pytest_membudget.gate.trend import TREND_TOLERANCE, find_trends
from pytest_membudget.records.report import Environment, Report, TestRecord
from pytest_membudget.report.history import write_trend
from pytest_membudget.stats.change_points import find_changes, find_levelled_changes

SAMPLES = json.loads(Path(__file__).with_name("data").joinpath("noise_samples.json").read_text())
RACING = [name for name in SAMPLES if name.startswith("threads_")]
YEAR = 250
"""Commits to the default branch."""


def is_material(before, after):
    low, high = sorted((math.exp(before), math.exp(after)))
    return high > TREND_TOLERANCE.allowed_bytes(int(low))


def series(name, level, count, chance):
    return [math.log(chance.choice(SAMPLES[name]) * level(index)) for index in range(count)]


def rises(values):
    return [
        change for change in find_changes(values, is_material=is_material) if change.after > change.before
    ]


def alarms_in_a_year(values, environments=None):
    """Whether any of the looks after the 6th, 7th, … commit calls a rise."""
    for count in range(6, len(values) + 1):
        if environments is None:
            found = find_changes(values[:count], is_material=is_material)
        else:
            found = find_levelled_changes(
                values[:count], environments[:count], is_material=is_material
            ).changes
        if any(change.after > change.before for change in found):
            return True
    return False


def test_false_alarms_a_series_and_year(figure):
    chance = random.Random(11)
    rounds = 15
    steady = sum(
        alarms_in_a_year(series(name, lambda _: 1.0, YEAR, chance)) for name in SAMPLES for _ in range(rounds)
    )
    trials = rounds * len(SAMPLES)
    figure(
        "steady series, asked after every commit: false alarms a year", f"{steady / trials:.1%}", "at most 5%"
    )
    modes = 0
    for _ in range(200):
        share, gap = chance.uniform(0.1, 0.9), chance.uniform(0.05, 0.4)
        values = [
            math.log(4e7 * (1 + gap * (chance.random() < share)) * chance.gauss(1, 0.003))
            for _ in range(YEAR)
        ]
        modes += alarms_in_a_year(values)
    figure("two modes, asked after every commit: false alarms a year", f"{modes / 200:.1%}", "at most 5%")
    moved = 0
    for name in SAMPLES:
        for _ in range(5):
            at, step = chance.randint(30, 220), chance.uniform(0.85, 1.3)
            values = series(name, lambda index, at=at, step=step: step if index >= at else 1.0, YEAR, chance)
            moved += alarms_in_a_year(values, [int(index >= at) for index in range(YEAR)])
    figure(
        "one change of environment: false alarms a year", f"{moved / (5 * len(SAMPLES)):.1%}", "at most 5%"
    )
    assert max(steady / trials, modes / 200, moved / (5 * len(SAMPLES))) <= 0.05


def test_jumps_of_3_to_20_percent(figure):
    chance = random.Random(12)
    missed = dict.fromkeys(SAMPLES, 0)
    far = found = 0
    rounds = 60
    for name in SAMPLES:
        for _ in range(rounds):
            count, size = chance.randint(60, YEAR), chance.uniform(1.03, 1.2)
            at = chance.randint(15, count - 10)
            values = series(name, lambda index, at=at, size=size: size if index >= at else 1.0, count, chance)
            told = rises(values)
            if not told:
                missed[name] += 1
                continue
            found += 1
            far += min(abs(change.first - at) for change in told) > 2
    trials = rounds * len(SAMPLES)
    quiet = sum(count for name, count in missed.items() if name not in RACING)
    share = sum(missed.values()) / trials
    figure("jumps of 3 to 20%: missed, all 20", f"{share:.1%}", "at most 3%")
    figure(
        "jumps of 3 to 20%: missed, without racing threads",
        f"{quiet / (trials - 2 * rounds):.1%}",
        "at most 3%",
    )
    figure("jumps found: more than two revisions off", f"{far / found:.1%}", "")
    print_table(
        "missed jumps", [("test", "missed")] + [(n, f"{c} of {rounds}") for n, c in missed.items() if c]
    )
    assert quiet / (trials - 2 * rounds) <= 0.03
    assert share <= 0.05


@pytest.mark.parametrize(("rate", "limit"), [(0.01, 15), (0.003, 45)])
def test_creep_is_told_soon(figure, rate, limit):
    chance = random.Random(13)
    soon = dict.fromkeys(SAMPLES, 0)
    as_worse = 0
    rounds = 15
    for name in SAMPLES:
        for _ in range(rounds):
            before = chance.randint(20, 120)
            values = series(
                name, lambda index, b=before: (1 + rate) ** max(0, index - b + 1), before + limit, chance
            )
            looks = [rises(values[: before + count]) for count in range(2, limit + 1)]
            soon[name] += any(change.is_ramp for told in looks for change in told)
            as_worse += any(looks)
    trials = rounds * len(SAMPLES)
    quiet = sum(count for name, count in soon.items() if name not in RACING) / (trials - 2 * rounds)
    wanted = "at least 95%" if rate == 0.01 else ""
    figure(
        f"creep of {rate:.1%} a commit: told as creep within {limit} commits, all 20",
        f"{sum(soon.values()) / trials:.1%}",
        wanted,
    )
    figure(f"creep of {rate:.1%} a commit: the same, without racing threads", f"{quiet:.1%}", wanted)
    figure(f"creep of {rate:.1%} a commit: told as a rise of any kind, all 20", f"{as_worse / trials:.1%}")
    assert rate != 0.01 or quiet >= 0.95


def test_a_year_of_a_thousand_tests(figure, tmp_path):
    chance = random.Random(14)
    names = list(SAMPLES)
    tests, revisions = 1_000, 500
    grown = {index: chance.randint(100, 490) for index in range(0, tests, 12)}
    start = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    path = tmp_path / "year.sqlite"
    with open_history(path, create=True) as history:
        for number in range(revisions):
            records = tuple(
                TestRecord(
                    nodeid=f"tests/test_{names[index % 20]}.py::test_{index}",
                    outcome="passed",
                    peak_bytes=round(
                        chance.choice(SAMPLES[names[index % 20]])
                        * (1.2 if number >= grown.get(index, 999) else 1)
                    ),
                )
                for index in range(tests)
            )
            created = (start + datetime.timedelta(hours=17 * number)).isoformat()
            run = Report(tests=records, environment=Environment(system="Linux"), created=created)
            history.add(run, f"{number:040x}")
    begin = time.process_time()
    with open_history(path) as history:
        report = find_trends(history, "year.sqlite")
    seconds = time.process_time() - begin
    write_trend(report, tmp_path / "year.html")
    page_bytes = (tmp_path / "year.html").stat().st_size
    figure("1,000 tests × 500 revisions: trend, processor time", f"{seconds:.1f} s", "at most 5 s")
    figure("1,000 tests × 500 revisions: the page", f"{page_bytes / 1e6:.1f} MB", "at most 10 MB")
    figure("1,000 tests × 500 revisions: the file", f"{path.stat().st_size / 1e6:.1f} MB")
    assert seconds <= 5
    assert page_bytes <= 10_000_000
