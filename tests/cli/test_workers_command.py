"""How many workers fit: the base of each and the bound of its task, the largest files together."""

import pytest

from pytest_membudget import MemoryEstimator, fit_points
from pytest_membudget.cli import calibrations, main

MB = 1_000_000


@pytest.fixture
def saved(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(calibrations, "bare_interpreter_bytes", lambda: 10 * MB)
    fit_points([(size * MB, 10 * size * MB) for size in (1, 2, 4, 8) for _ in range(3)]).save("kept.json")
    return "./kept.json"


def test_as_many_as_fit_by_their_size(saved, capsys):
    # A worker of 10 MB and a task of 80 MB: eleven take 990 MB of 1,000.
    assert main(["workers", saved, "--size", "8 MB", "--limit", "1 GB", "--share", "100%"]) == 0
    told = capsys.readouterr().out
    assert "workers: 11, together at most 944 MiB, 99.0% of 1 GB" in told
    assert "12 would take 1.01 GiB, more than 100.0% of it" in told
    assert "extrapolated" not in told


def test_the_largest_files_count_and_there_are_no_more_workers_than_files(saved, tmp_path, capsys):
    for number in (1, 2, 4):
        (tmp_path / f"{number}.csv").write_bytes(bytes(number * MB))
    files = [f"{number}.csv" for number in (1, 2, 4)]
    assert main(["workers", saved, *files, "--limit", "1 GB"]) == 0
    told = capsys.readouterr().out
    assert "workers: 3, together at most 95.4 MiB, 10.0% of 1 GB" in told
    assert "no more files" in told
    assert main(["workers", saved, *files, "--limit", "90 MB", "--share", "85%"]) == 0
    assert "workers: 1, together at most 47.7 MiB" in capsys.readouterr().out


def test_it_agrees_with_an_estimator_of_processes(saved, tmp_path, capsys):
    sizes = [number * MB for number in (1, 2, 3, 4, 5, 6)]
    for size in sizes:
        (tmp_path / f"{size}.csv").write_bytes(bytes(size))
    # Ten bytes for each byte of input, as the points lie, and a bare interpreter of 10 MB.
    estimator = MemoryEstimator(gamma=10, overhead=0, base=10 * MB)
    for limit in ("100 MB", "151 MB", "200 MB", "269 MB"):
        assert main(["workers", saved, *(f"{size}.csv" for size in sizes), "--limit", limit]) == 0
        workers = estimator.optimal_workers(sizes, limit=limit, processes=True)
        assert f"workers: {workers}, " in capsys.readouterr().out


def test_where_none_fits_it_fails_with_both_numbers(saved, capsys):
    assert main(["workers", saved, "--size", "80 MB", "--limit", "500 MB"]) == 1
    told = capsys.readouterr().out
    assert "calibrated up to 8 MB; beyond, this is extrapolated" in told
    assert "workers: none: one takes 772 MiB, and 75.0% of 500 MB is 358 MiB" in told


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["./kept.json"], "name the files, or --size and no files"),
        (["nightly", "--size", "1 MB"], "there is no calibration 'nightly' in"),
        (["./kept.json", "none.csv"], "none.csv: No such file or directory"),
        (["./kept.json", "--size", "10 GBB"], "unknown unit 'GBB'"),
    ],
)
def test_what_cannot_be_understood_is_a_usage_error(saved, capsys, words, said):
    assert main(["workers", *words]) == 2
    assert said in capsys.readouterr().err
