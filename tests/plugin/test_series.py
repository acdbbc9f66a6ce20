"""Tests in a row are one series: what fixtures of several tests held must not hide what the next test takes."""

import json

import pytest

from pytest_membudget.measurement.probe import Probe
from pytest_membudget.measurement.process.reclaim import Series
from pytest_membudget.plugin.probes import AmpleProbe
from pytest_membudget.records.measurement import Measurement

MB = 1_000_000

SUITE = """
import pytest

def blocks():
    # Too small for mmap: freed under a survivor, they stay resident in malloc until they are given back.
    return [bytearray(50_000) for _ in range(600)]

survivors = []

class TestFirst:
    @pytest.fixture(scope="class")
    def held(self):
        held = blocks()
        survivors.append(bytearray(50_000))
        yield held

    @pytest.mark.parametrize("number", range(3))
    def test_uses(self, held, number):
        pass

class TestSecond:
    def test_takes(self):
        blocks()
"""

OWN_FIXTURE = """
import pytest

survivors = []

@pytest.fixture
def held():
    blocks = [bytearray(50_000) for _ in range(600)]
    survivors.append(bytearray(50_000))
    yield blocks

def test_uses(held):
    pass

def test_takes():
    [bytearray(50_000) for _ in range(600)]
"""


@pytest.mark.parametrize(("suite", "passed"), [(SUITE, 4), (OWN_FIXTURE, 2)], ids=["class", "function"])
@pytest.mark.parametrize("options", [[], ["--membudget-default=500MB"]])
def test_what_a_fixture_held_hides_nothing_of_the_next_test(pytester, options, suite, passed):
    pytester.makepyfile(suite)
    result = pytester.runpytest_subprocess("--membudget-report=r.json", *options)
    result.assert_outcomes(passed=passed)
    tests = json.loads((pytester.path / "r.json").read_text())["tests"]
    assert tests[-1]["peak_bytes"] > 25_000_000


@pytest.mark.parametrize(
    ("peak_mb", "upper_mb", "caveats"),
    [(380, 380, []), (420, 520, ["may-be-reused"]), (501, 501, [])],
    ids=["within with all that was there", "within by the peak alone", "over"],
)
def test_what_an_ample_budget_left_unasked_is_in_the_upper_figure_where_it_matters(
    peak_mb, upper_mb, caveats, monkeypatch
):
    found = Measurement(
        peak_bytes=peak_mb * MB,
        peak_upper_bytes=peak_mb * MB,
        total_peak_bytes=(100 + peak_mb) * MB,
        start_bytes=100 * MB,
        end_bytes=100 * MB,
        duration_s=0.1,
        processes=1,
        source="kernel",
    )
    monkeypatch.setattr(Probe, "finish", lambda *_: found)
    measurement = AmpleProbe("test", 500 * MB, Series(), None).finish()
    assert measurement.peak_upper_bytes == upper_mb * MB
    assert [each.kind for each in measurement.caveat_records] == caveats
