"""What inputs are charged: what the caller says, their files, else what was seen of their function."""

import os
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_membudget import FallbackExecutor, MemoryEstimator, UsageError
from pytest_membudget.runtime.executor.charges import (
    ChargeRule,
    FileEstimators,
    FunctionPeaks,
    item_of_call,
    largest_of,
)
from pytest_membudget.runtime.prediction.predictors import InputSize, input_size

MB = 1_000_000
ESTIMATOR = MemoryEstimator(gamma=10, overhead="1 MB")


def rule(*, by_kind=False, **said):
    return ChargeRule(FunctionPeaks(), FileEstimators(ESTIMATOR, by_kind=by_kind), ESTIMATOR, **said)


@pytest.fixture
def files(tmp_path, monkeypatch):
    """`one.csv` of 100 bytes, and `folder` with 300 bytes in two files."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one.csv").write_bytes(bytes(100))
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    (tmp_path / "folder" / "a.bin").write_bytes(bytes(200))
    (tmp_path / "folder" / "inner" / "b.bin").write_bytes(bytes(100))
    return tmp_path


@pytest.mark.parametrize(
    ("item", "size"),
    [
        ("one.csv", InputSize(100, ".csv")),
        (b"one.csv", InputSize(100, ".csv")),
        (Path("one.csv"), InputSize(100, ".csv")),
        (("one.csv", {"sep": ";"}), InputSize(100, ".csv")),
        (["one.csv", "one.csv"], InputSize(200, ".csv")),
        ({"input": "one.csv", "more": ("folder",)}, InputSize(400, "/")),
        ("folder", InputSize(300, "/")),
        ("absent.csv", None),
        (("absent.csv", 3), None),
        (7, None),
        ("a\0b", None),
        (".", None),
        (("one.csv", "/", ".", ".."), InputSize(100, ".csv")),
        ([[[[["one.csv"]]]]], None),
    ],
)
def test_an_inputs_size_is_what_its_paths_hold(files, item, size):
    assert input_size(item) == size


def test_a_folder_that_cannot_be_read_has_no_files_in_it(files, monkeypatch):
    def no_entries(path):
        raise FileNotFoundError(path)

    monkeypatch.setattr(os, "scandir", no_entries)
    assert input_size("folder") == InputSize(0, "/")


def test_a_path_is_charged_the_same_wherever_it_stands(files):
    items = ["one.csv", ("one.csv", {"sep": ";"}), item_of_call(("one.csv",), {"sep": ";"})]
    charges = [rule().charge(print, item) for item in items]
    assert {each.charge.first_bytes() for each in charges} == {MB + 1000}
    assert {each.size_bytes for each in charges} == {100}
    assert [each.is_file for each in charges] == [True, False, False]


@pytest.mark.parametrize(
    ("memory", "charged_bytes"),
    [
        ("300 MB", 300 * MB),
        (7, 7),
        (lambda item: f"{item} MB", 5 * MB),
        (MemoryEstimator(gamma=0, overhead="2 MB"), 2 * MB),
    ],
)
def test_what_the_caller_says_is_charged(memory, charged_bytes):
    assert rule(memory=memory).charge(print, 5).charge.first_bytes() == charged_bytes


def test_the_estimator_goes_by_the_size_that_the_caller_gives():
    charged = rule(size_bytes=lambda row: row["bytes"]).charge(print, {"bytes": 50})
    assert (charged.charge.first_bytes(), charged.size_bytes) == (MB + 500, 50)


def raising(_):
    raise KeyError("rows")


def leaving(_):
    raise SystemExit(3)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"memory": raising}, r"memory: raising\('x'\) raised KeyError: 'rows'"),
        ({"memory": leaving}, r"memory: leaving\('x'\) raised SystemExit: 3"),
        ({"memory": lambda _: "much"}, r"memory: .*gave 'much': 'much' is not a size"),
        ({"memory": lambda _: None}, "gave None"),
        ({"memory": lambda _: -1}, "gave -1"),
        ({"memory": lambda _: -1.5}, "gave -1.5: -1 is negative"),
        ({"memory": lambda _: float("nan")}, "gave nan: nan is not a size"),
        ({"memory": lambda _: True}, "gave True"),
        ({"size_bytes": raising}, r"size_bytes: raising\('x'\) raised KeyError"),
    ],
)
def test_a_function_of_the_callers_that_fails_is_told_for_that_input(said, words):
    charge = rule(**said).charge(print, "x").charge
    with pytest.raises(UsageError, match=words):
        charge.first_bytes()


@pytest.mark.parametrize("answer", [3.5e6, 3499999.2, Fraction(6_999_999, 2)])
def test_a_size_that_was_computed_is_rounded_up_to_whole_bytes(answer):
    assert rule(memory=lambda _: answer).charge(print, "x").charge.first_bytes() == 3_500_000


def test_a_size_of_all_inputs_that_is_none_is_refused_before_any_of_them():
    with FallbackExecutor(1, budget="1 GB") as executor, pytest.raises(UsageError, match="memory: 'lots'"):
        executor.run(abs, [1, 2], memory="lots")


@pytest.mark.parametrize(
    ("peak_mb", "upper_mb", "charged_mb"),
    [(0, 80, 50), (70, 120, 70), (0, 20, 20), (40, 41, 40)],
    ids=["nothing proven", "more proven than guessed", "less possible than guessed", "known"],
)
def test_a_peak_that_is_not_known_does_not_lower_the_charge_below_the_guess(peak_mb, upper_mb, charged_mb):
    guess = MemoryEstimator(gamma=3, overhead="50 MB")
    of_all = ChargeRule(FunctionPeaks(), FileEstimators(guess, by_kind=True), guess)
    of_all.charge(abs, "x").charge.observe(peak_mb * MB, 1.0, upper_mb * MB)
    assert of_all.charge(abs, "x").charge.first_bytes() == charged_mb * MB


def test_a_chunk_is_charged_like_its_largest_input(files):
    charged = [rule().charge(print, item) for item in ("one.csv", "folder")]
    assert largest_of(charged) is charged[1]
    failed = rule(memory=raising).charge(print, 1)
    assert largest_of([*charged, failed]) is failed


def test_nothing_known_of_an_input_means_the_functions_own_history():
    asked = rule()
    first = asked.charge(print, 1).charge
    assert (first.first_bytes(), first.calls_seen) == (MB, 0)
    first.observe_running(30 * MB)
    assert asked.charge(print, 2).charge.first_bytes() == 30 * MB
    assert asked.charge(print, 2).charge.calls_seen == 0, "it still grows: the others wait on"
    first.observe(40 * MB, 1.0)
    again = asked.charge(print, 2).charge
    assert (again.first_bytes(), again.calls_seen) == (40 * MB, 1)


def test_a_preset_is_a_guess_until_a_file_of_that_kind_was_seen(files):
    asked = rule(by_kind=True)
    first = asked.charge(print, "one.csv").charge
    assert first.calls_seen == 0
    assert rule().charge(print, "one.csv").charge.calls_seen is None, "the caller chose the estimator"
    first.observe_running(30 * MB)  # it may take more: the estimate is raised, and learns nothing else
    again = asked.charge(print, "one.csv").charge
    assert (again.calls_seen, again.first_bytes()) == (0, 30 * MB)
    first.observe(40 * MB, 1.0)
    assert again.calls_seen == 1


def seen_numbers(pairs):
    """A rule after calls of `pow` with these numbers, and the peaks that they took."""
    asked = rule()
    for number, peak_bytes in pairs:
        asked.charge(pow, number).charge.observe(peak_bytes, 1.0)
    return lambda number: asked.charge(pow, number).charge.first_bytes()


def test_a_number_counts_for_its_call_once_eight_were_seen():
    charged = seen_numbers([(80, 80 * MB), *[(5, 5 * MB)] * 6])
    assert charged(5) == charged(80) == 80 * MB
    charged = seen_numbers([(80, 80 * MB), *[(5, 5 * MB)] * 7])
    assert 5 * MB <= charged(5) < 20 * MB
    assert charged(80) >= 80 * MB


def test_numbers_that_say_nothing_leave_the_largest_peak():
    charged = seen_numbers((number, (20 + 61 * number % 80) * MB) for number in range(80))
    assert all(charged(number) >= 90 * MB for number in range(0, 80, 7))


def test_calls_that_take_little_are_charged_the_largest_peak_of_all():
    charged = seen_numbers((number, number * MB // 10) for number in range(60))
    assert charged(1) == 59 * MB // 10


@pytest.mark.parametrize("item", [-1, 0.5, True, "7", (7,), None])
def test_nothing_but_a_count_is_taken_for_a_number(item):
    asked = rule()
    for _ in range(9):
        asked.charge(pow, 1).charge.observe(10 * MB, 1.0)
    asked.charge(pow, 9).charge.observe(90 * MB, 1.0)
    assert asked.charge(pow, 1).charge.first_bytes() < 50 * MB
    assert asked.charge(pow, item).charge.first_bytes() == 90 * MB


def test_identifiers_that_are_no_size_of_anything_are_charged_the_largest_peak():
    charged = seen_numbers((2**100 + number, 20 * MB) for number in range(9))
    assert charged(2**100) == 20 * MB


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(1, 400)), min_size=1, max_size=30))
def test_no_number_is_charged_less_than_was_seen_of_it(pairs):
    charged = seen_numbers((number, megabytes * MB) for number, megabytes in pairs)
    for number, megabytes in pairs:
        assert charged(number) >= megabytes * MB
