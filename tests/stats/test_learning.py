import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_membudget.stats.learning import AllocationLearner
from pytest_membudget.stats.learning.models import Price, build_ladder, fit_models

MB = 1_000_000
FREE = Price(share=0.0, restart_bytes=0.0, least_cover=0.0)


def line(count, seed=0, gamma=5.0, scatter=0.03):
    source = random.Random(seed)
    sizes = [source.uniform(1, 50) * MB for _ in range(count)]
    return [(size, (20 * MB + gamma * size) * source.gauss(1, scatter)) for size in sizes]


def run(learner, tasks):
    """Failed attempts, and waste over use, as the recorded workflows are judged."""
    failed, waste, used = 0, 0.0, 0.0
    for size, peak in tasks:
        allocated = learner.allocate(size)
        while allocated < peak:
            failed, waste = failed + 1, waste + allocated
            more = learner.retry(size, allocated)
            assert more > allocated
            allocated = more
        waste, used = waste + allocated - peak, used + peak
        learner.observe(size, peak)
    return failed, waste / used


@pytest.mark.parametrize(("aim", "most_failed", "most_waste"), [("cheap", 20, 0.12), ("safe", 4, 0.25)])
def test_a_noisy_line_is_allocated_closely(aim, most_failed, most_waste):
    failed, waste = run(AllocationLearner(line(12), aim=aim), line(200, seed=1))
    assert failed <= most_failed
    assert waste < most_waste


def test_safe_fails_less_and_cheap_wastes_less():
    tasks = [(MB, random.Random(seed).lognormvariate(0, 0.6) * 100 * MB) for seed in range(300)]
    safe, cheap = (run(AllocationLearner(tasks[:20], aim=aim), tasks[20:]) for aim in ("safe", "cheap"))
    assert safe[0] < cheap[0]
    assert cheap[1] < safe[1]


def test_two_populations_of_one_size_are_told_apart_by_a_first_try():
    source = random.Random(3)
    tasks = [(MB, (4000 if source.random() < 0.1 else 100) * MB + source.random() * MB) for _ in range(200)]
    learner = AllocationLearner(tasks, aim="cheap")
    assert learner.allocate(MB) < 110 * MB
    assert learner.retry(MB, learner.allocate(MB)) > 3900 * MB
    assert AllocationLearner(tasks, aim="safe").allocate(MB) > 3900 * MB


def test_a_retry_covers_the_next_population_in_proportion_to_the_size():
    source = random.Random(4)
    sizes = [source.uniform(1, 50) * MB for _ in range(200)]
    tasks = [(size, (8 if source.random() < 0.1 else 5) * size * source.gauss(1, 0.005)) for size in sizes]
    learner = AllocationLearner(tasks, aim="cheap")
    for size in (4 * MB, 40 * MB):
        first = learner.allocate(size)
        assert 4.9 * size < first < 5.5 * size
        assert 8 * size < learner.retry(size, first) < 9 * size


def test_one_expects_what_most_models_say_and_not_the_largest_of_their_answers():
    assert AllocationLearner(line(40)).expect(MB) == pytest.approx(25 * MB, rel=0.1)


def test_a_changed_workload_is_learned_and_the_old_one_forgotten():
    learner = AllocationLearner(line(100, gamma=2), aim="cheap")
    run(learner, line(20, seed=5, gamma=20))
    assert len(learner) < 60
    assert learner.expect(30 * MB) == pytest.approx(620 * MB, rel=0.1)
    run(learner, line(20, seed=6, gamma=2))
    assert learner.expect(30 * MB) == pytest.approx(80 * MB, rel=0.1)


def test_steady_work_is_not_forgotten():
    learner = AllocationLearner(aim="cheap")
    run_on = line(150, seed=8)
    learner.observe(*run_on[0])
    run(learner, run_on[1:])
    assert len(learner) == 150


def test_a_size_beyond_all_others_follows_what_grows():
    learner = AllocationLearner(line(40, scatter=0.001), aim="cheap")
    assert learner.allocate(500 * MB) == pytest.approx(2520 * MB, rel=0.05)


def test_safe_starts_from_the_tolerance_bound_of_the_line():
    from pytest_membudget.stats.fitting import fit_peaks

    points = line(12, scatter=0.1)  # so much that the models' own votes stay below the bound
    bound = fit_peaks(points).bound(30 * MB, content=0.99, confidence=0.95)
    assert AllocationLearner(points, aim="safe").allocate(30 * MB) >= bound
    assert AllocationLearner(points, aim="cheap").allocate(30 * MB) < bound


def test_known_durations_weigh_instead_of_sizes():
    hours = AllocationLearner(aim="cheap")
    sizes = AllocationLearner(aim="cheap")
    for place, (size, peak) in enumerate(line(60, scatter=0.2)):
        hours.observe(size, peak, 3600.0 if place == 7 else 1.0)
        sizes.observe(size, peak)
    assert hours.allocate(20 * MB) != sizes.allocate(20 * MB)


def test_nothing_known_is_said_and_one_task_is_scaled_up():
    with pytest.raises(ValueError, match="nothing has been observed"):
        AllocationLearner().allocate(1)
    with pytest.raises(ValueError, match="neither"):
        AllocationLearner(aim="bold")
    one = AllocationLearner([(MB, 3 * MB)])
    assert one.expect(MB) == 3 * MB
    assert one.expect(2 * MB) == 6 * MB
    assert one.allocate(MB) > 3 * MB
    two = AllocationLearner([(MB, 3 * MB), (2 * MB, 5 * MB)])
    assert two.expect(2 * MB) == 5 * MB
    assert two.expect(4 * MB) == 10 * MB


@given(
    st.lists(st.tuples(st.integers(0, 10**12), st.integers(0, 10**12)), min_size=1, max_size=40),
    st.integers(0, 10**13),
    st.integers(0, 10**13),
    st.sampled_from(["safe", "cheap"]),
)
def test_any_history_gives_an_allocation_and_a_retry_that_is_more(tasks, size, failed, aim):
    learner = AllocationLearner(tasks, aim=aim)
    assert learner.allocate(size) >= 0
    assert learner.expect(size) >= 0
    assert learner.retry(size, failed) > failed


def test_only_so_much_is_remembered():
    assert len(AllocationLearner(line(10_000))) < 300


@pytest.mark.parametrize(
    ("peaks", "start"),
    [
        ((10, 10, 10, 10, 10), 10),  # one population: cover it
        ((10, 10, 10, 10, 10, 10, 10, 10, 10, 100), 10),  # nine cheap ones pay for one failure
        ((50, 100, 100, 100, 100, 100), 100),  # one cheap one does not pay for five failures
    ],
)
def test_the_first_rung_is_the_cheapest_in_hindsight(peaks, start):
    ones = [1.0] * len(peaks)
    ladder = build_ladder([0.0] * len(peaks), ones, peaks, ones, FREE)
    assert ladder.start() == pytest.approx(start, rel=0.3)


def test_a_ladder_only_climbs_and_ends():
    peaks = [float(peak) for peak in range(1, 60)]
    ladder = build_ladder([0.0] * 59, [1.0] * 59, peaks, [1.0] * 59, FREE)
    offset, seen = ladder.start(), []
    while offset is not None:
        seen.append(offset)
        offset = ladder.after(offset)
    assert seen == sorted(set(seen))
    assert seen[-1] > 59


def test_a_failure_that_costs_more_raises_the_first_rung():
    peaks = [float(peak) for peak in range(1, 60)]
    dear = Price(share=5.0, restart_bytes=100.0, least_cover=0.5)
    free, careful = (build_ladder([0.0] * 59, [1.0] * 59, peaks, [1.0] * 59, price) for price in (FREE, dear))
    assert free.start() < careful.start()


def test_models_answer_for_tasks_they_have_not_seen():
    sizes = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0]
    models = {model.name: model for model in fit_models(sizes, [10 * size for size in sizes])}
    assert models["line"].left_out == pytest.approx([10 * size for size in sizes])
    assert models["power"].predict(8.0) == pytest.approx(80)
    # Without itself, 32 is the mean of its five nearest.
    assert models["neighbours"].left_out[-1] == pytest.approx(10 * (1 + 2 + 4 + 8 + 16) / 5)
    assert [model.name for model in fit_models([5.0] * 4, [1.0, 2.0, 3.0, 4.0])] == ["constant"]


def test_a_task_of_nearly_nothing_is_no_measure_of_another():
    learner = AllocationLearner([(0, 0), (0, 10**12), (10**9, 10**9), (8, 0)], aim="safe")
    assert learner.allocate(0) < 10**15  # a line's bound, and not a trillion times the smallest
