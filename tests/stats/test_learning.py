import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_membudget.stats.allocation_models import fit_models, judge_rules
from pytest_membudget.stats.learning import AllocationLearner

MB = 1_000_000


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


def test_cheap_leaves_room_above_peaks_that_agree():
    learner = AllocationLearner([(size * 1e9, 38e9 + size * 1e6) for size in range(40, 52)], aim="cheap")
    assert learner.allocate(45e9) > 1.002 * 38.051e9


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


def best_offset(peaks, restart_bytes=0.0):
    ones = [1.0] * len(peaks)
    rules = judge_rules([0.0] * len(peaks), ones, peaks, ones, restart_bytes, tail_tasks=0.0)
    return rules.offsets[rules.wastes.index(min(rules.wastes))]


@pytest.mark.parametrize(
    ("peaks", "offset"),
    [
        ((10, 10, 10, 10, 10), 10),  # one population: cover it
        ((10, 10, 10, 10, 10, 10, 10, 10, 10, 100), 10),  # nine cheap ones pay for one failure
        ((50, 100, 100, 100, 100, 100), 100),  # one cheap one does not pay for five failures
    ],
)
def test_the_rule_that_wasted_least_is_known(peaks, offset):
    assert best_offset(peaks) == pytest.approx(offset, rel=0.01)


def test_a_rule_covers_all_tasks_but_the_one_that_stands_apart():
    peaks = [1000.0] * 33 + [1010.0, 1100.0]
    ones = [1.0] * len(peaks)
    rules = judge_rules([0.0] * len(peaks), ones, peaks, ones, 0.0, tail_tasks=0.0, one_may_fail=True)
    assert 1010 < rules.offsets[rules.wastes.index(min(rules.wastes))] < 1020


def test_a_failure_that_costs_more_asks_for_more():
    peaks = [float(peak) for peak in range(1, 60)]
    assert best_offset(peaks) < best_offset(peaks, restart_bytes=500.0)


@given(st.lists(st.tuples(st.integers(1, 10**6), st.integers(1, 10**6)), min_size=3, max_size=30))
def test_the_waste_of_a_rule_is_what_it_would_have_been(tasks):
    guesses, peaks = zip(*tasks, strict=True)
    ones = [1.0] * len(tasks)
    rules = judge_rules(guesses, ones, peaks, ones, 0.0, tail_tasks=0.0)
    retry = 1.04 * max(peaks)
    for offset, waste in zip(rules.offsets[:4], rules.wastes, strict=False):
        given = [(guess + offset, peak) for guess, peak in tasks]
        found = sum(a - peak if a >= peak else a + retry - peak for a, peak in given) / len(tasks)
        top = max(zip(peaks, guesses, strict=True), key=lambda task: task[0] - task[1])
        doubt = (
            retry / len(tasks) if top[1] + offset >= top[0] else 0
        )  # judged by what the others would have tried
        assert found - 1e-6 * retry <= waste <= found + doubt + 1e-6 * retry


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


@pytest.mark.parametrize("aim", ["safe", "cheap"])
def test_models_that_fit_badly_still_answer_beyond_all_sizes(aim):
    tasks = [(size * MB, (1 if size < 50 else 1000) * MB) for size in range(1, 101)]
    assert AllocationLearner(tasks, aim=aim).allocate(400 * MB) > 1000 * MB


def test_a_retry_above_all_of_late_goes_to_the_largest_peak_that_was_ever_seen_near_that_size():
    learner = AllocationLearner([(2 * MB, 43 * MB)] * 9, aim="cheap")
    for _ in range(200):
        learner.observe(2 * MB, 30_000)
    given = learner.allocate(2 * MB)
    assert given < MB, "what tasks take of late wastes least"
    assert 43 * MB <= learner.retry(2 * MB, given) < 60 * MB
