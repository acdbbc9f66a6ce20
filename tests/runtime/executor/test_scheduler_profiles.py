"""The scheduler starts what fits by its profile, beside calls that keep to theirs. Time and readings are scripted."""

import pytest
from scripted_scheduler import MB, Played, a_task, sent

from pytest_membudget import ExecutorPolicy, FallbackExecutor, UsageError
from pytest_membudget.runtime.executor.local_placement import COLD_START_S, charged_call
from pytest_membudget.runtime.prediction.profiles import LEAST_RUNS, FollowedCall, Profiles
from pytest_membudget.runtime.workers.protocol import Reading

PEAK_BYTES = 100 * MB


def early_peak():
    """Of a call that takes ten seconds, and holds its peak in the first three."""
    profile = Profiles().of("parse", 0)
    for _ in range(LEAST_RUNS):
        followed = FollowedCall(profile, PEAK_BYTES)
        for second in range(11):
            followed.read(second, PEAK_BYTES if second <= 3 else 10 * MB)
        followed.ended(10.0, PEAK_BYTES)
    return profile


@pytest.fixture
def played():
    """A budget for one peak and a bit. One call runs since second 0, another waits; the workers are warm."""
    played = Played(120 * MB, workers=2, profiles=True)
    warming = [a_task(), a_task()]
    played.submit(*warming)
    for task in warming:
        played.returned(task)
    profile = early_peak()
    played.first, played.second = (a_task(PEAK_BYTES, profile=profile) for _ in range(2))
    assert sent(played.submit(played.first, played.second)) == [played.first]
    return played


def holds(megabytes, began_s=0.0):
    return Reading(began_s, None, megabytes * MB)


def test_the_next_call_starts_when_the_peak_is_over(played):
    assert not sent(played.pass_time(2.0, holds(100)))
    assert not sent(played.pass_time(3.0, holds(100)))
    assert sent(played.pass_time(5.0, holds(10))) == [played.second]


def test_a_call_that_holds_more_than_its_profile_says_counts_with_its_peak(played):
    played.pass_time(2.0, holds(100))
    assert not sent(played.pass_time(5.0, holds(80)))
    assert not sent(played.pass_time(6.0, holds(10)))
    assert sent(played.returned(played.first)) == [played.second]


def test_a_late_call_counts_with_its_peak(played):
    played.pass_time(2.0, holds(100))
    assert not sent(played.pass_time(12.0, holds(10)))


def test_what_was_started_beside_counts_with_its_peak_until_it_has_begun(played):
    third = a_task(PEAK_BYTES, profile=early_peak())
    played.scheduler.pool.concurrency.most = played.scheduler.pool.concurrency.now = 3
    played.submit(third)
    played.pass_time(2.0, holds(100))
    assert sent(played.pass_time(5.0, holds(10))) == [played.second]
    assert not sent(played.pass_time(5.5, Reading(None, None, 0)))


def test_without_the_rule_peaks_alone_count():
    played = Played(120 * MB, workers=2)
    first, second = a_task(PEAK_BYTES), a_task(PEAK_BYTES)
    played.submit(first, second)
    assert not sent(played.pass_time(5.0, holds(10)))


def test_a_finished_call_teaches_the_profile_of_its_function():
    played, profile = Played(1000 * MB, workers=1, profiles=True), Profiles().of("parse", 0)
    for _ in range(LEAST_RUNS):
        task = a_task(PEAK_BYTES, profile=profile)
        played.submit(task)
        began_s = played.scheduler.pool.now_s
        for second in range(1, 10):
            played.pass_time(began_s + second, holds(100 if second <= 3 else 10, began_s))
        played.returned(task, duration_s=10.0, peak_bytes=PEAK_BYTES)
    shares = profile.now().shares
    assert shares[0] == pytest.approx(1.02)  # two runs of one function differ by that
    assert max(shares[10:]) == pytest.approx(0.12)


def test_no_call_waits_in_a_worker_for_the_one_before():
    played = Played(1000 * MB, workers=1, profiles=True)
    played.scheduler.pool.throughput.mean_s = 0.001
    tasks = [a_task(profile=early_peak()) for _ in range(2)]
    assert sent(played.submit(*tasks)) == [tasks[0]]


def test_a_budget_that_programs_share_goes_by_peaks():
    with pytest.raises(UsageError, match='profiles=True goes with scope="process"'):
        FallbackExecutor(scope="host", policy=ExecutorPolicy(profiles=True))


def test_a_call_that_begins_late_counts_with_its_peak():
    played = Played(1000 * MB, workers=1, profiles=True)
    task = a_task(PEAK_BYTES, profile=early_peak())
    played.submit(task)
    slot = played.slot_of(task)
    ages_s = (0.4, COLD_START_S + 0.1)
    soon, late = (charged_call(slot, slot.lease, played.scheduler.pool.now_s + age_s) for age_s in ages_s)
    assert (soon.profile is None, soon.may_wait_s) == (False, COLD_START_S)
    assert late.profile is None
