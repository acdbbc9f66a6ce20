"""The decision about growth, on scripted figures."""

import itertools
import math
import random

import pytest

from pytest_membudget.stats.growth import (
    ALPHA,
    Effort,
    Patience,
    Precision,
    Trend,
    decide,
    is_bounded_so_far,
    next_step,
    trend,
)


def schedule(last):
    calls, reached = [], 0
    while reached < last:
        reached += next_step(reached)
        calls.append(reached)
    return calls


def judged(held, *, last=16_384, allowed=0.0, precision=None):
    calls = schedule(last)
    return trend(calls, [held(n) for n in calls], allowed=allowed, precision=precision)


def over_allocated_list(n):
    room = 0
    while room < n:
        room = (room + (room >> 3) + 6) & ~3
    return 8 * room


def doubling_table(n):
    slots = 8
    while slots * 2 / 3 < n:
        slots *= 2
    return slots * 30


@pytest.mark.parametrize(
    "held",
    [
        lambda n: 8 * n,
        lambda n: 1_000_000 + 500 * n,
        over_allocated_list,
        lambda n: 28 * n + doubling_table(n),
        lambda n: 8000 * (n // 1000),
        lambda n: 16 * n + 200 * (n % 7),
    ],
    ids=["steady", "large", "list", "dict", "every-1000th", "saw-tooth-on-a-leak"],
)
def test_what_grows_for_ever_is_growing(held):
    assert judged(held).direction == "growing"


@pytest.mark.parametrize(
    "held",
    [
        lambda _: 4096,
        lambda n: 100 * min(n, 500),
        lambda n: 100 * min(n, 3000),
        lambda n: 100 * (n % 128),
        lambda n: 100_000 - n,
        lambda n: 3 * n,
    ],
    ids=["constant", "cache-500", "cache-3000", "ring", "shrinking", "below-the-resolution"],
)
def test_what_stays_is_flat(held):
    assert judged(held).direction == "flat"


def test_a_cache_that_is_being_filled_is_not_flat_yet():
    assert judged(lambda n: 100 * min(n, 3000), last=2048).direction != "flat"


@pytest.mark.parametrize("entries", [2000, 3000, 5000, 7000])
def test_a_cache_that_has_just_been_filled_is_not_growing(entries):
    assert judged(lambda n: 100 * min(n, entries), last=8192).direction != "growing"


def test_a_cache_filled_at_random_slows_down_and_is_not_growing():
    assert judged(lambda n: 200_000 * (1 - (1 - 1 / 2000) ** n), last=8192).direction != "growing"


@pytest.mark.parametrize("last", [230, 288, 360])
def test_a_cache_among_noise_that_is_full_by_now_is_not_growing(last):
    assert judged(lambda n: 250_000 * min(n, 150) + n % 7 * 60_000, last=last).direction != "growing"


@pytest.mark.parametrize("seed", range(40))
def test_random_memory_that_is_given_back_is_never_growing(seed):
    source = random.Random(seed)
    for last in (256, 4096, 32_768):
        assert judged(lambda _: source.randrange(2_000_000), last=last).direction != "growing"


@pytest.mark.parametrize("seed", range(10))
def test_a_leak_shows_through_random_memory_that_is_given_back(seed):
    source = random.Random(seed)
    assert judged(lambda n: 100 * n + source.randrange(50_000)).direction == "growing"


@pytest.mark.parametrize(("per_call", "direction"), [(64, "flat"), (67, "flat"), (72, "growing")])
def test_growth_is_judged_above_what_is_allowed(per_call, direction):
    assert judged(lambda n: per_call * n, allowed=64.0).direction == direction


def test_the_slope_of_a_steady_leak_is_exact():
    found = judged(lambda n: 24 * n)
    assert (found.slope, found.low, found.high, found.fallback) == (24.0, 24.0, 24.0, 0.0)


def test_the_interval_holds_the_true_slope_of_a_leak_among_noise():
    held = 0
    for seed in range(200):
        source = random.Random(seed)
        found = judged(lambda n: 50 * n + source.randrange(20_000))  # noqa: B023 - used at once
        held += found.low <= 50 <= found.high
    assert held >= 0.97 * 200


def test_one_step_among_pages_that_come_singly_is_not_growing():
    whole_pages = Precision(in_all=2**20, lately=2**20)
    calls = [1, 2, 3, 4, 6, 9, 13, 19, 28, 42, 60, 75, 93]  # as read beside polars
    held = [4096.0 * sample + (2_200_000 if n > 60 else 0) for sample, n in enumerate(calls)]
    assert trend(calls, held, precision=whole_pages).direction != "growing"
    assert judged(lambda n: 40_960 * n, last=100, precision=whole_pages).direction == "growing"


def test_too_few_samples_say_nothing():
    assert trend([1, 2, 3], [0, 10, 20]).direction == "unclear"


def test_one_descriptor_a_call_is_growing_at_the_resolution_of_counts():
    assert judged(lambda n: n, last=500, precision=Precision(0.001, lately=0.0)).direction == "growing"


GROWING = Trend("growing", 8.0, 8.0, 8.0, 0.0)
FLAT = Trend("flat", 0.0, 0.0, 0.0, 0.0)
UNCLEAR = Trend("unclear", 2.0, 0.0, 9.0, 0.0)
LARGE = GROWING._replace(grown=64 << 20)


@pytest.mark.parametrize(
    ("trends", "effort", "verdict"),
    [
        ([GROWING, FLAT], Effort(10_000, 1.0), "leak"),
        ([GROWING, FLAT], Effort(10_000, 0.01), None),
        ([GROWING, FLAT], Effort(3000, 1.0), None),
        ([GROWING, FLAT], Effort(400, 8.1), "leak"),
        ([LARGE, FLAT], Effort(256, 1.0), "leak"),
        ([LARGE, FLAT], Effort(255, 7.0), None),
        ([LARGE, FLAT], Effort(256, 0.9), None),
        ([LARGE._replace(grown=16 << 20), FLAT], Effort(1023, 7.0), None),
        ([LARGE._replace(grown=16 << 20), FLAT], Effort(1024, 1.0), "leak"),
        ([GROWING, FLAT._replace(grown=64 << 20)], Effort(1024, 1.0), None),
        ([GROWING, FLAT], Effort(200, 1.0, exhausted=True), "leak"),
        ([FLAT, FLAT], Effort(2048, 0.3), "clean"),
        ([FLAT, FLAT], Effort(2048, 0.1), None),
        ([FLAT, FLAT], Effort(20, 2.0), "clean"),
        ([FLAT, FLAT], Effort(3, 9.0), None),
        ([FLAT, UNCLEAR], Effort(9000, 3.0), None),
        ([FLAT, UNCLEAR], Effort(9000, 10.0, exhausted=True), "inconclusive"),
        ([GROWING, UNCLEAR], Effort(9000, 3.0), "leak"),
    ],
)
def test_a_verdict_needs_calls_and_time(trends, effort, verdict):
    assert decide(trends, effort, Patience()) == verdict


def test_samples_lie_ever_farther_apart():
    steps = [next_step(n) for n in (0, 3, 8, 100, 1000, 100_000)]
    assert steps[0] == 1
    assert all(before <= after for before, after in itertools.pairwise(steps))
    assert len(schedule(100_000)) < 100


@pytest.mark.parametrize("stop_at", [64, 512, 4096])
def test_what_rises_by_chance_is_rarely_called_growing_whenever_the_check_stops(stop_at):
    """Each step rises or falls with equal probability, and never falls back further: the worst that the bound allows."""
    alarms = 0
    for seed in range(200):
        source, held, calls, series = random.Random(seed), 0.0, 0, []
        while calls < stop_at:
            calls += next_step(calls)
            held += 1000 * (source.random() < 0.5)
            series.append((calls, held))
            found = [list(each) for each in zip(*series, strict=True)]
            if len(series) > 16 and trend(*found).direction == "growing":
                alarms += 1
                break
    assert alarms <= ALPHA * 200


def test_what_slows_down_is_clean_in_the_end_where_little_came_of_it():
    slowing = judged(lambda n: 20_000 * (1 - 0.5 ** (n / 400)), last=512)
    assert slowing.direction == "slowing"
    assert decide([slowing], Effort(512, 8.5), Patience()) is None
    assert decide([slowing], Effort(512, 8.5, exhausted=True), Patience()) == "clean"
    much = slowing._replace(grown=1e6)
    assert decide([much], Effort(512, 8.5, exhausted=True), Patience()) == "inconclusive"
    assert decide([much], Effort(512, 8.5, exhausted=True), Patience(caches_bytes=1 << 20)) == "clean"


def by_chance(probability, size_bytes, seed, last):
    """A leak in some calls, of 0.5 to 1.5 times that size."""
    source, held = random.Random(seed), [0.0]
    for _ in range(last):
        kept = (source.random() < probability) * source.uniform(0.5, 1.5) * size_bytes
        held.append(held[-1] + kept)
    return judged(lambda n: held[min(n, last)], last=last)


def test_a_leak_in_few_calls_is_never_clean_because_its_first_ones_came_early():
    frequent = [by_chance(0.1, 300, seed, 1700) for seed in range(40)]
    assert sum(each.direction == "growing" for each in frequent) >= 38
    rare = [by_chance(0.02, 300, seed, 1700) for seed in range(40)]
    assert sum(is_bounded_so_far(each) for each in rare) <= 4


def test_keys_that_become_ever_rarer_are_never_clean():
    for held in (lambda n: 700 * n**0.5, lambda n: 300 * n**0.7, lambda n: 6000 * math.log(n)):
        found = judged(lambda n: held(n) // 60 * 60, last=1800)  # noqa: B023 - used at once
        assert found.grown > 16_384
        assert decide([found], Effort(1800, 8.5, exhausted=True), Patience()) != "clean"


@pytest.mark.parametrize("enlarged_at", [15, 18, 20, 24])
def test_a_leak_is_never_clean_because_a_table_was_enlarged_once(enlarged_at):
    calls = [*range(1, 24), *range(24, 54, 2)]  # as many as a function of 150 ms allows
    found = trend(calls, [88 * n + 4000 * (n > enlarged_at) for n in calls])
    assert decide([found], Effort(52, 8.5, exhausted=True), Patience()) != "clean"


@pytest.mark.parametrize(("entries", "after"), [*itertools.pairwise(schedule(1200)[-6:])])
def test_a_cache_that_has_just_become_full_does_not_grow(entries, after):
    assert judged(lambda n: 1033 * min(n, entries), last=entries).direction == "growing"
    assert judged(lambda n: 1033 * min(n, entries), last=after).direction != "growing"


def test_a_cache_that_is_nearly_full_is_clean_so_far_however_much_it_holds():
    full = judged(lambda n: 3e6 * (1 - 0.5 ** (n / 100)), last=800)
    assert full.fades
    assert is_bounded_so_far(full)
    for held in (lambda n: 3e5 * math.log(n), lambda n: 1e6 * (1 - 0.5 ** (n / 50)) + 100 * n):
        assert not is_bounded_so_far(judged(held, last=800))


def test_next_to_nothing_in_all_is_flat_however_few_the_calls():
    assert judged(lambda n: 200 * (n > 20), last=32).direction == "flat"


@pytest.mark.parametrize("fall_at", range(3, 16))
def test_a_leak_is_not_flat_because_something_else_was_given_back_once(fall_at):
    calls = list(range(1, 23))
    held = [340 * n + 20_000 * (n < fall_at) for n in calls]
    assert trend(calls, held).direction != "flat"


@pytest.mark.parametrize("full_at", [40, 60, 80, 120])
def test_a_ring_of_results_of_random_size_is_flat_once_it_is_full_for_three_quarters_of_the_calls(full_at):
    flat = 0
    for seed in range(8):
        source = random.Random(seed)
        sizes = [source.randrange(2000) for _ in range(1000)]
        flat += judged(lambda n: sum(sizes[max(0, n - full_at) : n]), last=500).direction == "flat"  # noqa: B023 - used at once
    assert flat >= (7 if full_at < 100 else 4)


@pytest.mark.parametrize("seed", [373, 676, 968])
def test_a_leak_among_noise_is_not_flat_because_low_figures_came_late(seed):
    noise = random.Random(seed)
    calls = range(5, 1000, 10)
    assert trend(calls, [120 * n + noise.uniform(0, 100_000) for n in calls]).direction != "flat"


def test_each_return_of_a_saw_tooth_to_its_floor_is_counted():
    calls = range(4, 1001, 4)
    assert trend(calls, [1000.0 * (n % 100) for n in calls]).falls == 9  # from an eighth of the calls on
    assert trend(calls, [8.0 * n for n in calls]).falls == 0
