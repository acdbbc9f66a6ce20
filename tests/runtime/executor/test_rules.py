"""The executor's decisions, on scripted figures."""

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pytest_membudget import (
    ExecutorPolicy,
    FallbackExecutor,
    MemoryEstimator,
)
from pytest_membudget.errors import UsageError
from pytest_membudget.records.measurement import MemoryLimit, MemoryReading
from pytest_membudget.runtime.admission.budgets import Budget
from pytest_membudget.runtime.admission.ledger import Ledger
from pytest_membudget.runtime.executor.charges import (
    CallCharge,
    FileEstimators,
    FunctionPeaks,
    function_key,
)
from pytest_membudget.runtime.executor.flow_control import ConcurrencyLimit, best_order
from pytest_membudget.runtime.executor.placement import CallerPlacement
from pytest_membudget.runtime.executor.state import Backend
from pytest_membudget.runtime.executor.worker_pool import STARTS_THAT_MAY_FAIL, Levels
from pytest_membudget.runtime.prediction.predictors import kind_of


def levels(*names):
    return Levels([Backend(name, CallerPlacement(100), own_memory=name == "process") for name in names])


def test_levels_go_down_one_by_one_and_never_up():
    three = levels("process", "thread", "sequential")
    process, thread, sequential = three.all
    assert three.fall_below(process)
    assert three.now is thread
    assert three.fall_below(process), "a worker of a level that was left says nothing of the present one"
    assert three.now is thread
    assert three.fall_below(thread)
    assert not three.fall_below(sequential)
    assert three.now is sequential


def test_a_level_cannot_start_after_failures_in_a_row_and_a_call_ends_the_row():
    one = levels("process")
    for _ in range(STARTS_THAT_MAY_FAIL - 1):
        assert not one.cannot_start(one.now)
    one.came_to_a_call(one.now)
    assert [one.cannot_start(one.now) for _ in range(2 * STARTS_THAT_MAY_FAIL)] == [False, False, True] * 2


@pytest.mark.parametrize(
    ("names", "found"),
    [(("process", "thread"), "thread"), (("process",), "process"), (("process", "sequential"), "process")],
)
def test_threads_are_those_of_the_present_level_or_below(names, found):
    assert levels(*names).for_threads.level == found


def test_a_level_of_threads_that_was_left_is_not_gone_back_to():
    two = levels("thread", "sequential")
    two.fall_below(two.now)
    assert two.for_threads.level == "sequential"


@pytest.mark.parametrize("given", [{"preload": "pandas"}, {"preload": (1,)}, {"dead_letters": 5}])
def test_a_rule_that_makes_no_sense_is_named_at_once(given):
    (name,) = given
    with pytest.raises(UsageError, match=f"^{name} is "):
        ExecutorPolicy(**given)


@pytest.mark.parametrize("given", [{"policy": {"retries": 1}}, {"estimator": 3}])
def test_what_is_no_policy_or_estimator_is_named_at_once(given):
    (name,) = given
    with pytest.raises(UsageError, match=f"^{name} is "):
        FallbackExecutor(**given)


def test_concurrency_halves_and_comes_back_step_by_step():
    concurrency = ConcurrencyLimit(8, recover_after=2)
    concurrency.lost()
    concurrency.lost()
    assert concurrency.now == 2
    back = [concurrency.clean() for _ in range(12)]
    assert back == [False] * 11 + [True]
    assert concurrency.now == 8


@given(st.integers(1, 64), st.lists(st.booleans(), max_size=200))
def test_concurrency_stays_between_one_and_all(most, clean):
    concurrency = ConcurrencyLimit(most, recover_after=3)
    for each in clean:
        if each:
            concurrency.clean()
        else:
            concurrency.lost()
        assert 1 <= concurrency.now <= most


def test_what_takes_most_of_the_machine_for_longest_goes_first():
    # weights: 10 x 1/2, 2 x 90/100, 3 x 1/2, 1 x 1/2
    assert best_order([10, 2, 3, 1], [10, 90, 10, 10], workers=2, budget_bytes=100) == [0, 1, 2, 3]
    assert best_order([1, 1, 1], [5, 5, 5], workers=2, budget_bytes=100) == [0, 1, 2]
    assert best_order([1, 1], [10, 80], workers=4, budget_bytes=100) == [1, 0]


def test_the_order_is_the_one_that_ends_soonest():
    # By cost, 2 4 1 0 5 3, it takes until 12: three large ones are left over, which cannot share the budget.
    durations_s, sizes_bytes = [2, 3, 5, 1, 4, 2], [60, 60, 40, 70, 30, 60]
    order = best_order(durations_s, sizes_bytes, workers=2, budget_bytes=100)
    assert played(order, durations_s, sizes_bytes, 2) == 9
    assert played([2, 4, 1, 0, 5, 3], durations_s, sizes_bytes, 2) == 12


@given(
    st.lists(st.tuples(st.floats(0.01, 10), st.integers(1, 120)), min_size=1, max_size=40),
    st.integers(1, 5),
    st.sampled_from([0, 1, 32]),
)
@example(
    [(1.0, 1), (1.0, 58), (1.0, 58), (2.0, 1), (3.0, 1), (3.0, 38), (3.0, 63), (2.5, 43)], 2, 32
)  # two end at once
@example(
    [(5.0, 8), (3.0, 58), (1.0, 45), (4.0, 52)], 2, 0
)  # by cost it ends sooner where nothing may pass the head
def test_playing_orders_through_never_ends_later_than_the_formula(tasks, workers, most):
    durations_s, sizes_bytes = [each[0] for each in tasks], [each[1] for each in tasks]
    order = best_order(durations_s, sizes_bytes, workers=workers, budget_bytes=100, max_overtakes=most)
    assert sorted(order) == list(range(len(tasks)))
    cost = [duration * max(1 / workers, size / 100) for duration, size in tasks]
    formula = sorted(range(len(tasks)), key=lambda place: -cost[place])
    end_s, formulas_end_s = (
        played(each, durations_s, sizes_bytes, workers, most) for each in (order, formula)
    )
    assert end_s <= formulas_end_s


def played(order, durations_s, sizes_bytes, workers, max_overtakes=32):
    """When the last task ends, granted by the real ledger on a scripted clock."""
    ledger = Ledger(100, max_overtakes=max_overtakes)
    for place in order:
        ledger.submit(sizes_bytes[place], exclusive=sizes_bytes[place] > 100, token=place)
    running, now_s = [], 0.0
    while True:
        while len(running) < workers and (granted := ledger.grant(at_most=1)):
            running.append((now_s + durations_s[granted[0].token], granted[0].sequence, granted[0]))
        if not running:
            return now_s
        first = min(running)
        running.remove(first)
        now_s = first[0]
        ledger.release(first[2])


def test_a_call_is_charged_the_overhead_until_its_function_has_been_seen():
    peaks, estimator = FunctionPeaks(), MemoryEstimator(gamma=3, overhead="50 MB")
    charge = CallCharge(print, peaks, estimator)
    assert charge.first_bytes() == 50_000_000
    charge.observe(7_000_000, 0.1)
    charge.observe(4_000_000, 0.1)
    assert charge.first_bytes() == 7_000_000
    assert CallCharge(len, peaks, estimator).first_bytes() == 50_000_000


def test_each_kind_of_file_has_its_own_estimate_unless_the_caller_gave_one():
    preset = MemoryEstimator.preset("dataframe")
    estimators_of = FileEstimators(preset, by_kind=True)

    def of(fn, name):
        return estimators_of.of(fn, kind_of(Path(name))).estimator

    assert of(print, "a/1.csv") is of(print, "b/2.CSV")
    kinds = ["1.csv", "1.csv.gz", "1.json", "1", "sample.s7.xml", ".hidden"]
    estimators = [of(print, name) for name in kinds]
    assert len({id(each) for each in estimators}) == 5  # neither of the last and the fourth has an end
    assert of(print, "sample.s8.xml") is of(print, "other.xml")
    assert of(print, "1.001") is of(print, "1")
    assert of(len, "1.csv") is not of(print, "1.csv")
    estimators[0].observe(10, 900_000_000)
    assert of(print, "1.json").estimate_file_memory(10) == preset.estimate_file_memory(10)
    assert FileEstimators(preset, by_kind=False).of(print, ".csv").estimator is preset


def test_names_with_too_many_ends_share_an_estimate():
    preset = MemoryEstimator.preset("dataframe")
    of = FileEstimators(preset, by_kind=True).of
    assert {id(of(print, f".part{number}x").estimator) for number in range(100)} >= {id(preset)}
    assert of(print, ".another").estimator is preset


def test_functions_that_finished_long_ago_are_forgotten():
    peaks = FunctionPeaks()
    for number in range(2000):
        peaks.observe(f"m:{number}", 1)
    assert peaks.peak_bytes("m:0") is None
    assert peaks.peak_bytes("m:1999") == 1


def test_a_method_has_the_same_name_for_every_instance():
    assert function_key([].append) == function_key([1].append)
    assert function_key(print) != function_key(len)


def readings(*available_bytes):
    left = list(available_bytes)
    return lambda: MemoryReading(limit=MemoryLimit(1000, "a test"), available_bytes=left.pop(0))


@pytest.mark.parametrize(("target", "expected"), [(0.70, 700 - 100), (0.90, 800 - 100)])
def test_without_a_budget_it_is_what_is_really_available(target, expected):
    budget = Budget(None, target, readings(880, 880), clock=lambda: 0.0)
    # 120 in use, of which our own workers hold 20.
    assert budget.now_bytes(lambda: 20) == expected


def test_it_follows_the_machine_but_asks_rarely():
    seconds = [0.0]
    budget = Budget(None, 0.70, readings(1000, 500), clock=lambda: seconds[0])
    seen = []
    for seconds[0] in (0.0, 0.1, 0.3, 0.4):
        seen.append(budget.now_bytes(lambda: 0))
    assert seen == [700, 700, 200, 200]


def test_a_given_budget_is_used_whole():
    budget = Budget(1234, 0.70, readings(), clock=lambda: 0.0)
    assert budget.now_bytes(lambda: 1000) == budget.largest_bytes == 1234


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), "1", True])
def test_a_start_timeout_that_is_no_time_is_refused(seconds):
    with pytest.raises(UsageError, match="start_timeout_s is"):
        ExecutorPolicy(start_timeout_s=seconds)
