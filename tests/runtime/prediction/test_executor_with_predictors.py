import pytest

from pytest_membudget import Calibration, FallbackExecutor, fit_points

pytestmark = pytest.mark.processes
MB = 1_000_000
TABLES = [
    ({"rows": r, "columns": c}, 5 * MB + 900 * r * c) for r, c in ((100, 10), (800, 10), (200, 60), (500, 40))
]


def allocate(item):
    rows, columns = item
    return len(bytearray(900 * rows * columns))


def test_items_are_charged_and_learned_by_their_predictors():
    functions = {"rows": lambda item: item[0], "columns": lambda item: item[1]}
    estimator = Calibration(fit_points(TABLES).file, functions).estimator("safe")
    with FallbackExecutor(1, estimator=estimator) as executor:
        batch = executor.run(allocate, [(400, 40), (100, 10)])
    assert [outcome.cause for outcome in batch.outcomes] == ["ok", "ok"]
    large, small = (outcome.estimate_bytes for outcome in batch.outcomes)
    assert [feature.value for feature in batch.outcomes[0].features] == [400, 40]
    assert large >= 5 * MB + 900 * 400 * 40 > 2 * small
