"""Any inputs, any function with a name, and predictors of one's own."""

import functools
import os
import sys
from pathlib import Path

import calibrated_functions as functions
import pytest

from pytest_membudget import UsageError, calibrate, load_calibration
from pytest_membudget.calibration.plan import plan_inputs
from pytest_membudget.calibration.worker import refer_to
from pytest_membudget.runtime.prediction.predictors import Predictors

pytestmark = pytest.mark.processes
MB = 1_000_000
PREDICTORS = {"rows": lambda item: item[0], "columns": lambda item: item[1], "odd": lambda item: item[0] % 7}
TABLES = [(100, 20), (800, 10), (200, 60), (500, 40), (900, 5), (400, 25)]


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths = [tmp_path / f"{size}.bin" for size in (500_000, MB, 2 * MB)]
    for path in paths:
        path.write_bytes(bytes(int(path.stem)))
    return paths


def short(fn, **options):
    return calibrate(fn, **{"repeats": 1, "progress": False, **options})


def test_the_predictors_that_help_are_found_and_the_others_named(tmp_path):
    found = short(functions.table, inputs=TABLES, predictors=PREDICTORS)
    assert found.predictors == ("rows", "columns")
    assert found.left_out == ("odd",)
    assert "left out, since it does not help to predict: odd" in found.caveats
    assert found.expect((600, 30)) == pytest.approx(37 * MB, rel=0.05)
    assert found.expect({"rows": 600, "columns": 30}) == found.expect((600, 30)) <= found.bound((600, 30))
    assert not found.is_extrapolated((600, 30))
    assert found.is_extrapolated((900, 60))

    found.save(tmp_path / "table.json")
    bare = load_calibration(tmp_path / "table.json")
    assert bare.bound({"rows": 600, "columns": 30}) == found.bound((600, 30))
    with pytest.raises(UsageError, match=r"'rows' has no function here, so nothing is known of \(600, 30\)"):
        bare.bound((600, 30))
    again = load_calibration(tmp_path / "table.json", predictors=PREDICTORS)
    assert again.bound((600, 30)) == found.bound((600, 30))
    assert again.left_out == ("odd",)


def test_tuples_and_folders_go_by_all_that_is_in_them(files):
    relative = [([path.name], "option") for path in files]
    assert short(functions.read_all, inputs=relative).gamma == pytest.approx(11, rel=0.2)
    for path in files:
        path.with_suffix("").mkdir()
        path.rename(path.with_suffix("") / path.name)
    folders = short(functions.read_all, inputs=[path.with_suffix("").name for path in files])
    assert folders.gamma == pytest.approx(11, rel=0.2)
    assert sorted(point.size_bytes for point in folders.points) == [500_000, MB, 2 * MB]
    as_files = short(functions.read_all, files=[path.with_suffix("") for path in files])
    assert sorted(point.size_bytes for point in as_files.points) == [500_000, MB, 2 * MB]


@pytest.mark.parametrize(
    "fn",
    [
        functools.partial(functions.repeated, times=20),
        functions.Reader(20).read,
        functions.Reader(20),
        functools.partial(functions.Reader(10).read),
    ],
)
def test_partials_methods_and_objects_that_can_be_called_are_sent(fn, files):
    times = 10 if isinstance(fn, functools.partial) and not fn.keywords else 20
    assert short(fn, inputs=files).gamma == pytest.approx(times + 1, rel=0.2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inputs": [(1, 2)] * 3, "predictors": PREDICTORS}, "the same predictors show nothing of growth"),
        ({"inputs": [1, 2], "predictors": {"n": abs}}, "2 inputs, run once each, are fewer than 3 runs"),
        (
            {"inputs": [1, -2, 3], "predictors": {"n": lambda n: n}},
            "'n' of -2 is -2; it has to be a finite number",
        ),
        (
            {"inputs": [1, 2, 3], "predictors": {"n": lambda n: n / abs(n - 2)}},
            "'n' fails on 2: ZeroDivisionError",
        ),
        ({"inputs": [1, 2, 3], "predictors": {"n": None}}, "'n' has no function"),
        ({"inputs": [1, 2, 3], "predictors": {"n": "abs"}}, "give a function of the item"),
        (
            {"inputs": [1, 2, 3], "predictors": dict.fromkeys("abcd", abs)},
            "4 predictors given; name one to 3",
        ),
        ({"predictors": {"n": abs}}, "predictors need inputs"),
        ({"inputs": [1, 2, 3], "predictors": [abs]}, "names none"),
        ({"inputs": [1, 2, 3], "predictors": {"n": str}}, "'n' of 1 is '1'; it has to be a finite number"),
        ({"inputs": [1, 2, 3], "predictors": {"n": lambda n: n * 10**400}}, r"is 10{76}\.\.\.; it has to be"),
        ({"inputs": [object(), object(), object()]}, "is no path and holds none"),
        ({"inputs": [["no-such-file"]] * 3}, "is no path and holds none"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_runs(options, message, monkeypatch):
    monkeypatch.setattr("pytest_membudget.calibration.run_executors.run_fresh", None)
    with pytest.raises(UsageError, match=message):
        short(functions.table, **options)


def test_a_predictor_called_bytes_is_the_size(files):
    with pytest.raises(
        UsageError, match=r"'bytes' of .* is 3, and its size is 500,000; give the predictor an"
    ):
        short(functions.read_all, inputs=files, predictors={"bytes": lambda path: 3 + 0 * len(path.name)})
    rows = plan_inputs(TABLES, 1, 0, Predictors({"bytes": lambda item: 8 * item[0]}))
    assert {run.size_bytes for run in rows} == {8 * rows for rows, _ in TABLES}  # an item that is in no file


def test_what_cannot_be_sent_is_said(tmp_path):
    with pytest.raises(UsageError, match="holds what a fresh process cannot be given"):
        refer_to(functools.partial(functions.repeated, times=lambda: 2))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_file_whose_name_is_not_utf_8_is_refused(tmp_path):
    paths = [os.fsdecode(os.fsencode(tmp_path) + b"/%d\xff.csv" % number) for number in range(3)]
    for number, path in enumerate(paths):
        Path(path).write_text("1,2\n" * 1000 * (number + 1), encoding="utf-8")
    with pytest.raises(UsageError, match=r"udcff.* is not UTF-8 .* rename"):
        short(functions.table, files=paths)
