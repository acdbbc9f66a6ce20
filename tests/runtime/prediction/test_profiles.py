"""What calls hold over their time: learned shapes, what is charged by them, and that no sum of them exceeds a budget."""

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from pytest_membudget.runtime.prediction.profiles import (
    BINS,
    LEAST_RUNS,
    CallProfile,
    ChargedCall,
    FollowedCall,
    Profile,
    ProfileLearner,
    Profiles,
    Timeline,
    fits,
    largest_sum,
)

LATE = Profile((0.1,) * 7 + (1.0,) * 3, 8.0, 10.0)
EARLY = Profile((1.0,) * 3 + (0.1,) * 7, 10.0, 10.0)


def a_timeline(*readings):
    timeline = Timeline()
    for age_s, held_bytes in readings:
        timeline.add(age_s, held_bytes)
    return timeline


def learned(runs, held=lambda progress: 100 * progress):
    """A learner that saw calls of `(size, seconds)`, read at each twentieth of their time."""
    learner = ProfileLearner()
    for size, seconds in runs:
        readings = [(place / 20 * seconds, int(held(place / 20))) for place in range(21)]
        learner.observe(size, seconds, 100, a_timeline(*readings))
    return learner


def test_between_two_readings_a_call_held_what_either_shows():
    shares = a_timeline((0.0, 10), (0.5, 100), (0.6, 20), (1.0, 20)).shares(1.0, 100)[0]
    assert shares[:11] == (1.0,) * 11  # it rose to 100 at some time before the half
    assert shares[13:] == (0.2,) * (BINS - 13)


def test_what_no_reading_shows_of_a_peak_was_held_at_any_time():
    shares = a_timeline((0.0, 10), (0.5, 10), (1.0, 10)).shares(1.0, 60)[0]
    assert shares == (1.0,) * BINS


def test_a_call_without_readings_has_a_flat_profile():
    assert a_timeline().shares(0.01, 50)[0] == (1.0,) * BINS


def test_a_long_call_keeps_the_largest_of_many_readings():
    timeline = a_timeline(*((number / 1000, 90 if number == 7_777 else 10) for number in range(10_000)))
    shares = timeline.shares(10.0, 100)[0]
    assert max(shares) == shares[int(BINS * 0.7777)] == 1.0
    assert shares[0] == shares[-1] == 0.2


def test_a_profile_needs_enough_runs():
    runs = [(1_000, 1.0)] * (LEAST_RUNS - 1)
    assert learned(runs).profile(1_000) is None
    assert learned([*runs, (1_000, 1.0)]).profile(1_000) is not None


def test_durations_follow_the_size_and_keep_their_range():
    profile = learned([(size, size / 1_000) for size in range(1_000, 3_000, 100)]).profile(2_000)
    assert profile.shortest_s == pytest.approx(2.0 / 1.05)
    assert profile.longest_s == pytest.approx(2.0 * 1.05)


def test_few_runs_that_differ_widen_the_range_more():
    runs = [(0, 1.0), (0, 1.2), (0, 1.1), (0, 1.05), (0, 1.15)]
    few, many = learned(runs).profile(0), learned(runs * 6).profile(0)
    assert few.longest_s > many.longest_s > 1.2
    assert few.shortest_s < many.shortest_s < 1.0


def test_a_profile_says_nothing_of_sizes_that_were_not_seen():
    learner = learned([(size, 1.0) for size in range(1_000, 2_000, 100)])
    assert learner.profile(2_000) is not None
    assert learner.profile(3_000) is None
    assert learner.profile(500) is None


def test_functions_share_no_profile():
    profiles = Profiles()
    for _ in range(LEAST_RUNS):
        followed = FollowedCall(profiles.of("parse", 0), 100)
        followed.read(0.5, 100)
        followed.ended(1.0, 100)
    assert profiles.of("parse", 0).now() is not None
    assert profiles.of("render", 0).now() is None


def test_a_late_call_is_charged_its_peak_until_it_ends():
    assert ChargedCall(100, LATE, age_s=10.0).steps() == [(0.0, 100)]


def test_a_call_is_charged_what_the_fastest_and_the_slowest_would_hold():
    steps = dict(ChargedCall(100, LATE).steps())
    assert [steps[0.0], steps[0.7 * 8.0]] == [10, 100]  # the fastest rises then
    assert max(after_s for after_s, held in steps.items() if held == 100) == pytest.approx(9.0)
    assert steps[10.0] == 0  # the slowest has ended


def test_an_early_peak_makes_room_when_it_is_over():
    call = ChargedCall(100, EARLY)
    assert not fits(call, [ChargedCall(100, EARLY, age_s=2.0)], 120)
    assert fits(call, [ChargedCall(100, EARLY, age_s=3.1)], 120)


def test_a_call_that_may_begin_later_is_charged_for_both():
    beside = [ChargedCall(100, Profile((0.1,) * 4 + (1.0,) * 6, 10.0, 10.0))]
    assert fits(ChargedCall(100, EARLY), beside, 120)
    assert not fits(ChargedCall(100, EARLY, may_wait_s=1.5), beside, 120)


def test_without_a_profile_peaks_add_up():
    assert largest_sum([ChargedCall(40), ChargedCall(50), ChargedCall(10, LATE)]) == 100
    assert largest_sum([]) == 0


def test_what_a_call_holds_says_how_far_it_has_come():
    ramp = Profile(
        tuple(place / 10 for place in range(1, 11)), 5.0, 20.0, tuple(place / 10 for place in range(10))
    )
    half = ramp.within(5.0, 0.45, 0.55)
    assert 7.5 < half.shortest_s < 10.0 < half.longest_s < 14.0
    assert ramp.within(5.0, 0.05, 0.15) is None  # a quarter is the least at that age
    assert ramp.within(20.0, 0.1, 0.2) is ramp


def test_a_call_that_has_risen_is_past_that_and_one_that_has_not_is_before():
    late = LATE._replace(shortest_s=5.0, longest_s=20.0, least=LATE.shares)
    risen, waiting = late.within(7.0, 0.9, 1.1), late.within(7.0, 0.0, 0.2)
    assert risen.longest_s < 11.0
    assert waiting.shortest_s > 9.0


def test_a_call_off_its_profile_has_none():
    learner = learned([(0, 1.0)] * LEAST_RUNS)
    followed = FollowedCall(CallProfile(learner, 0), 100_000_000)
    followed.read(0.1, 8_000_000)
    assert followed.profile() is not None
    followed.read(0.2, 90_000_000)
    followed.read(0.9, 90_000_000)
    assert followed.profile() is None


@st.composite
def profiles(draw):
    shares = draw(st.lists(st.floats(0, 1), min_size=1, max_size=8))
    shortest_s = draw(st.floats(0.5, 5))
    return Profile(tuple(shares), shortest_s, shortest_s * draw(st.floats(1, 2)))


calls = st.tuples(
    st.integers(1, 60),  # peak
    st.none() | profiles(),
    st.floats(0, 1),  # where between the shortest and the longest its duration lies
    st.floats(0, 3),  # seconds until the next call comes
)


@settings(max_examples=300, deadline=None)
@given(st.lists(calls, min_size=1, max_size=12))
def test_calls_that_keep_to_their_profiles_never_hold_more_than_the_budget(arrivals):
    """Calls come one after the other, and start where they fit. What they truly hold is summed at many instants."""
    budget_bytes, now_s, started = 100, 0.0, []

    def ends_s(began_s, profile, speed):
        return began_s + profile.shortest_s + speed * (profile.longest_s - profile.shortest_s)

    for peak, profile, speed, pause_s in arrivals:
        running = [
            ChargedCall(bytes_, of, now_s - began_s)
            for began_s, bytes_, of, its_speed in started
            if of is None or now_s < ends_s(began_s, of, its_speed)
        ]
        if fits(ChargedCall(peak, profile), running, budget_bytes):
            started.append((now_s, peak, profile, speed))
        now_s += pause_s
    for place in range(400):
        at_s, held = place * 0.1, 0.0
        for began_s, peak, profile, speed in started:
            if profile is None:
                held += peak if at_s >= began_s else 0
            elif began_s <= at_s < (end_s := ends_s(began_s, profile, speed)) and end_s > began_s:
                progress = (at_s - began_s) / (end_s - began_s)
                held += (
                    peak * profile.shares[min(len(profile.shares) - 1, int(len(profile.shares) * progress))]
                )
        assert held <= budget_bytes + 1e-6


@given(st.lists(st.tuples(st.integers(0, 1000), profiles(), st.floats(0, 12)), max_size=6), st.floats(0, 12))
def test_the_largest_sum_is_an_upper_bound_of_every_sum(charged, after_s):
    running = [ChargedCall(peak, profile, age_s) for peak, profile, age_s in charged]
    at_once = sum(
        next(held for since_s, held in reversed(call.steps()) if since_s <= after_s) for call in running
    )
    assert at_once <= largest_sum(running) <= sum(call.peak_bytes for call in running)


@given(profiles(), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_what_is_read_never_rules_out_how_long_a_call_really_takes(profile, speed, done, height):
    least = tuple(share / 2 for share in profile.shares)
    profile = profile._replace(least=least)
    duration_s = profile.shortest_s + speed * (profile.longest_s - profile.shortest_s)
    place = min(len(least) - 1, int(done * len(least)))
    held = least[place] + height * (profile.shares[place] - least[place])
    narrowed = profile.within(done * duration_s, held, held)
    assert narrowed is not None
    assert narrowed.shortest_s <= duration_s <= narrowed.longest_s + 1e-9
