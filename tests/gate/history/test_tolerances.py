import random

import pytest

from pytest_membudget.gate.trend import learn_tolerance
from pytest_membudget.records.comparison import TestTrend, TrendChange

MIB = 2**20


def trend(peaks, *changes):
    return TestTrend(
        nodeid="t",
        verdict="steady",
        anchor_bytes=peaks[0],
        level_bytes=peaks[-1],
        noise=0.0,
        revisions=len(peaks),
        peaks_bytes=tuple(peaks),
        changes=changes,
    )


def scattered(sigma, count=60):
    chance = random.Random(1)
    return [round(40 * MIB * chance.gauss(1, sigma)) for _ in range(count)]


def test_a_quiet_test_is_held_tighter_than_the_default():
    learned = learn_tolerance(trend(scattered(0.002)))
    assert learned.tolerance == (0.03, 512 * 1024)
    assert str(learned) == "3% + 512 KiB, learned from its last 60 revisions"


def test_a_test_that_scatters_gets_what_it_has_shown():
    assert learn_tolerance(trend(scattered(0.08))).tolerance.share == pytest.approx(0.2, abs=0.06)
    assert learn_tolerance(trend(scattered(1.0))).tolerance.share == 0.5


def test_falls_allow_no_rise():
    peaks = [round(40 * MIB * (0.7 if number % 3 == 0 else 1)) for number in range(60)]
    assert learn_tolerance(trend(peaks)).tolerance.share == 0.03


def test_only_revisions_since_the_last_change_count_and_few_say_nothing():
    step = TrendChange(kind="jump", revision="r", index=40, before_bytes=1, after_bytes=2)
    peaks = [*scattered(0.3, 40), *scattered(0.002, 25)]
    assert learn_tolerance(trend(peaks, step)).tolerance.share == 0.03
    assert learn_tolerance(trend(peaks[:59], step)) is None


def test_a_test_that_uses_nothing_keeps_the_least():
    assert learn_tolerance(trend([0] * 30)).tolerance.share == 0.03
