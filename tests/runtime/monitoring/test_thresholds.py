"""When a cleanup is due, from figures alone."""

import pytest

from pytest_membudget.runtime.monitoring.cleanup import Alerts, Reason, Thresholds
from pytest_membudget.stats.growth import Slope

MB = 1_000_000
LIMIT = 1000 * MB


@pytest.fixture
def alerts():
    return Alerts(None, 10)


@pytest.fixture
def thresholds(alerts):
    return Thresholds(LIMIT, 4 * LIMIT, cleanup_share=0.8, emergency_factor=1.2, alerts=alerts)


def test_below_the_threshold_only_what_is_due_is_a_reason(thresholds):
    assert thresholds.reason(799 * MB) is None
    assert thresholds.reason(799 * MB, "every 5 chunks") == Reason("every 5 chunks", emergency=False)


def test_past_a_threshold_that_is_the_reason(thresholds):
    assert thresholds.reason(800 * MB, "every 5 chunks") == Reason(
        "763 MiB resident, 80.0% of the limit", emergency=False
    )
    assert thresholds.reason(1200 * MB).emergency


def test_the_real_limit_makes_an_emergency_sooner(alerts):
    near = Thresholds(LIMIT, LIMIT, cleanup_share=0.8, emergency_factor=1.2, alerts=alerts)
    assert not near.reason(949 * MB).emergency
    assert near.reason(950 * MB).emergency


def test_what_a_cleanup_could_not_free_is_no_reason_again_until_two_percent_came_on_top(thresholds):
    thresholds.cleaned_up(900 * MB)
    assert thresholds.reason(919 * MB, again=False) is None
    assert thresholds.reason(920 * MB, again=False) is not None
    assert thresholds.reason(919 * MB) is not None


def test_growth_is_an_alert_where_its_lower_bound_reaches_the_limit_in_five_minutes(thresholds, alerts):
    thresholds.check_growth(Slope(40 * MB, 20 * MB, 60 * MB), rss_bytes=900 * MB)
    assert not alerts.sentences
    thresholds.check_growth(Slope(40 * MB, 21 * MB, 60 * MB), rss_bytes=900 * MB)
    assert "38.1 MiB a minute" in alerts.sentences[0]
