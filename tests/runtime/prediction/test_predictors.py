import pytest

from pytest_membudget import MemoryEstimator, UsageError, fit_points
from pytest_membudget.runtime.prediction.predictors import FOLDER, InputSize, Predictors, input_size

MB = 1_000_000
TABLES = [
    ({"rows": rows, "columns": columns}, 5 * MB + 900 * rows * columns)
    for rows, columns in ((100, 10), (800, 10), (200, 60), (500, 40), (900, 5), (50, 90))
]


def test_an_estimator_takes_a_path_where_it_takes_a_size(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(bytes(MB))
    estimator = MemoryEstimator(2, "1 MB")
    for item in (path, str(path), (path, {"sheet": 1}), MB, "1 MB", {"bytes": MB}):
        assert estimator.estimate_file_memory(item) == 3 * MB
        assert estimator.features(item) == MB


@pytest.mark.parametrize("aim", ["safe", "cheap"])
def test_an_estimator_with_predictors_goes_by_items_and_learns_from_them(aim):
    functions = {"rows": lambda item: item[0], "columns": lambda item: item[1]}
    calibration = fit_points(TABLES)
    calibration = type(calibration)(calibration.file, functions)
    estimator = calibration.estimator(aim)
    given = estimator.estimate_file_memory((400, 40))
    assert 5 * MB + 900 * 400 * 40 <= given <= 1.4 * (5 * MB + 900 * 400 * 40)
    assert estimator.features((400, 40)) == {"rows": 400, "columns": 40}
    assert estimator.estimate_file_memory({"rows": 400, "columns": 40}) == given
    assert estimator.estimate_file_memory((40, 400)) == given
    assert estimator.retry_bytes((400, 40), given) > given
    for columns in range(20, 60):
        estimator.observe((400, columns), 3 * (5 * MB + 900 * 400 * columns))
    assert estimator.estimate_file_memory((400, 40)) >= 3 * (5 * MB + 900 * 400 * 40)
    with pytest.raises(UsageError, match="'rows' fails on 5000000"):
        estimator.estimate_file_memory(5 * MB)


def test_a_predictor_that_is_absurdly_large_is_named():
    found = fit_points(TABLES)
    for ask in (found.expect, found.bound, found.estimator("safe").estimate_file_memory):
        with pytest.raises(UsageError, match=r"'rows' of .* is 1e\+200; it has to be 1e\+30 at most"):
            ask({"rows": 1e200, "columns": 1})
        assert ask({"rows": 1e30, "columns": 1e30}) <= 2**63


def test_predictors_of_one_item_are_asked_for_by_name():
    predictors = Predictors({"bytes": None, "pages": len})
    assert predictors.values([1, 2], ("pages",)) == {"pages": 2.0}
    assert predictors.values({"pages": 7, "bytes": 9}) == {"bytes": 9.0, "pages": 7.0}
    with pytest.raises(UsageError, match="is nan; it has to be"):
        predictors.values({"pages": float("nan"), "bytes": 9})


def test_the_size_of_an_item_is_that_of_all_the_paths_in_it(tmp_path):
    for name, size in (("a.csv", 10), ("b.gz", 200)):
        (tmp_path / name).write_bytes(bytes(size))
    a, b = tmp_path / "a.csv", str(tmp_path / "b.gz")
    items = (a, b, tmp_path, (a, "option", 3), [b, [a]], {"one": a})
    assert [input_size(item).bytes for item in items] == [10, 200, 210, 10, 210, 10]
    assert input_size([b, a]) == InputSize(210, ".gz")
    assert input_size(tmp_path).kind == FOLDER
    assert [input_size(item) for item in (3, "no such file", (), {}, None)] == [None] * 5


def test_a_folder_with_a_loop_of_links_is_counted_once(tmp_path):
    (tmp_path / "a").write_bytes(bytes(10))
    (tmp_path / "loop").symlink_to(tmp_path)
    assert input_size(tmp_path).bytes < 10_000
