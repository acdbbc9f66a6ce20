import datetime
import random

import pytest

from pytest_membudget.errors import UsageError
from pytest_membudget.gate.history import open_history
from pytest_membudget.gate.trend import find_trends
from pytest_membudget.records.report import Environment, Report, TestRecord

MIB = 2**20


@pytest.fixture
def trend(tmp_path):
    """The trends of a history with one test a series of MiB; `python` names each run's interpreter."""

    def made(*series, python=None, since="", created=None):
        chance = random.Random(1)
        path = tmp_path / "h"
        path.unlink(missing_ok=True)
        with open_history(path, create=True) as history:
            for number in range(max(map(len, series))):
                tests = tuple(
                    TestRecord(
                        nodeid=f"t{n}",
                        outcome="passed",
                        peak_bytes=round(each[number] * MIB * chance.gauss(1, 0.002)),
                    )
                    for n, each in enumerate(series)
                    if number < len(each) and each[number] is not None
                )
                environment = Environment(
                    system="Linux", python=f"CPython {python[number] if python else '3.12'}.1"
                )
                when = created(number) if created else ""
                history.add(Report(tests=tests, environment=environment, created=when), f"r{number}")
            return find_trends(history, "h", since=since)

    return made


def test_steady_jumped_crept_and_unknown(trend):
    report = trend(
        [100] * 40,
        [100] * 25 + [115] * 15,
        [100 * 1.01 ** max(0, n - 20) for n in range(40)],
        [100] * 5,
    )
    tests = {test.nodeid: test for test in report.tests}
    assert [tests[f"t{n}"].verdict for n in range(4)] == ["steady", "jumped", "crept", "unknown"]
    assert (tests["t1"].revision, tests["t1"].change) == ("r25", pytest.approx(0.15, abs=0.01))
    assert int(tests["t2"].revision[1:]) == pytest.approx(21, abs=2)
    assert tests["t2"].change == pytest.approx(0.2, abs=0.02)
    assert tests["t0"].revision is None
    # Points scatter by 0.2% around the level, also where that climbs.
    assert [tests[f"t{n}"].noise for n in range(3)] == pytest.approx([0.002] * 3, abs=0.0012)
    assert "5 revisions are too few" in tests["t3"].caveats[0]
    assert [test.nodeid for test in report.tests][:2] == ["t2", "t1"]  # the newest change first


def test_what_fell_or_was_repaired_is_steady_and_told(trend):
    dropped, repaired, halfway = trend(
        [100] * 20 + [80] * 20, [100] * 20 + [120] * 10 + [100] * 10, [100] * 20 + [150] * 10 + [120] * 10
    ).tests[::-1][:3][::-1]
    by_name = {test.nodeid: test for test in (dropped, repaired, halfway)}
    assert by_name["t0"].verdict == by_name["t1"].verdict == "steady"
    assert [change.kind for change in by_name["t0"].changes] == ["drop"]
    assert [change.in_force for change in by_name["t1"].changes] == [False, False]
    assert (by_name["t2"].verdict, by_name["t2"].revision) == ("jumped", "r20")


def test_the_latest_jump_that_is_still_in_force_gives_the_revision(trend):
    (test,) = trend([100] * 20 + [110] * 20 + [130] * 20).tests
    assert test.revision == "r40"
    assert [change.revision for change in test.changes] == ["r20", "r40"]
    assert test.anchor_bytes == pytest.approx(100 * MIB, rel=0.01)


def test_another_environment_is_a_step_of_its_own(trend):
    python = ["3.12"] * 20 + ["3.13"] * 20
    steady, jumped = sorted(
        trend([100] * 20 + [130] * 20, [100] * 20 + [130] * 10 + [150] * 10, python=python).tests,
        key=lambda test: test.nodeid,
    )
    (step,) = steady.changes
    assert (steady.verdict, step.kind, step.revision) == ("steady", "environment", "r20")
    assert step.change == pytest.approx(0.3, abs=0.01)
    assert "Python 3.12 there, 3.13 here" in step.differences[0]
    assert (jumped.verdict, jumped.revision) == ("jumped", "r30")
    assert jumped.before_bytes == pytest.approx(130 * MIB, rel=0.01)


def test_since_leaves_earlier_changes_without_a_verdict(trend):
    series = [100] * 20 + [120] * 20
    days = lambda n: f"2026-{1 + n // 28:02d}-{1 + n % 28:02d}T00:00"  # noqa: E731
    assert trend(series, since="r10").tests[0].verdict == "jumped"
    assert trend(series, since="r20").tests[0].verdict == "jumped"
    assert trend(series, since="r21").tests[0].verdict == "steady"
    assert trend(series, since="2026-01-21T00:00", created=days).tests[0].verdict == "jumped"
    assert trend(series, since="2026-02-01", created=days).tests[0].verdict == "steady"
    with pytest.raises(UsageError, match="no revision 'r99'"):
        trend(series, since="r99")


def test_changes_of_a_page_and_tests_that_use_nothing_are_steady(trend):
    few = [3 / 1024 * n for n in (0, 1, 0, 1)]
    assert [test.verdict for test in trend([0.0] * 20, few * 10, [1.0] * 20 + [1.003] * 20).tests] == [
        "steady"
    ] * 3


def test_sizes_below_the_tolerance_are_not_distinguished(trend):
    barely = [0.0] * 20 + [
        5000 / MIB
    ] * 20  # by the tolerance of 2% + 4 KiB only 1 KiB above the least that counts
    clearly = [0.0] * 20 + [20_000 / MIB] * 20
    assert {test.nodeid: test.verdict for test in trend(barely, clearly).tests} == {
        "t0": "steady",
        "t1": "jumped",
    }


def test_the_month_begins_thirty_days_before_the_newest_run(trend):
    day = datetime.date(2026, 9, 1)
    found = trend([100] * 40, created=lambda number: f"{day + datetime.timedelta(days=number)}T08:00:00")
    assert found.month_index == 39 - 30
    assert (
        trend([100] * 40, created=lambda number: "" if number < 20 else "2026-11-01T08:00:00").month_index
        == 20
    )
    assert trend([100] * 40).month_index == 40 - 30  # no times: the last thirty revisions


def test_six_revisions_are_enough_for_a_verdict(trend):
    verdicts = {test.nodeid: test.verdict for test in trend([100] * 5, [100] * 6).tests}
    assert verdicts == {"t0": "unknown", "t1": "steady"}


def test_runs_of_one_revision_are_one_point(tmp_path):
    with open_history(tmp_path / "h", create=True) as history:
        for number in range(30):
            for shard in ("a", "b"):
                tests = (TestRecord(nodeid=shard, outcome="passed", peak_bytes=MIB),)
                history.add(Report(tests=tests), f"r{number // 3}")
                both = TestRecord(nodeid="both", outcome="passed", peak_bytes=(number % 3 + 1) * MIB)
                history.add(Report(tests=(both,), created=f"{number}{shard}"), f"r{number // 3}")
        report = find_trends(history, "h")
    assert len(report.revisions) == 10
    assert {test.nodeid: set(test.peaks_bytes) for test in report.tests}["both"] == {2 * MIB}
