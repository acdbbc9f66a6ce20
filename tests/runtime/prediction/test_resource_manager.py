import logging
import os
import sys

import pytest

from pytest_membudget import ResourceManager, get_optimal_workers
from pytest_membudget.measurement.system import machine

MB = 1_000_000


@pytest.fixture
def file_of(tmp_path):
    def make(size_mb):
        path = tmp_path / f"{size_mb}MB"
        with path.open("wb") as stream:
            stream.truncate(size_mb * MB)
        return path

    return make


@pytest.fixture
def without_psutil(monkeypatch):
    machine._say_assumed_once.cache_clear()
    monkeypatch.setitem(sys.modules, "psutil", None)
    yield
    machine._say_assumed_once.cache_clear()


def test_the_most_workers_whose_largest_files_fit_the_share(memory, file_of):
    memory.available_bytes = memory.total_bytes
    # 0.75 · 16,384 MB = 12,288 MB; a file of 1,000 MB takes 3,050 MB: four fit, five do not
    assert ResourceManager(reading=memory.reading).get_optimal_workers([file_of(1000)] * 10) == 4
    assert ResourceManager(eta=0.2, reading=memory.reading).get_optimal_workers([file_of(1000)] * 10) == 1
    assert (
        ResourceManager(gamma=1, overhead=0, reading=memory.reading).get_optimal_workers([file_of(1000)] * 99)
        == 12
    )


def test_no_more_workers_than_fit_what_is_available_now(memory, file_of):
    # 8,192 MB are available: two of 3,050 MB fit
    assert ResourceManager(reading=memory.reading).get_optimal_workers([file_of(1000)] * 10) == 2


def test_workers_stay_between_the_stated_ends(memory, file_of):
    files = [file_of(1)] * 100
    assert ResourceManager(reading=memory.reading).get_optimal_workers(files) == 16
    assert ResourceManager(max_workers=3, reading=memory.reading).get_optimal_workers(files) == 3
    assert (
        ResourceManager(min_workers=2, reading=memory.reading).get_optimal_workers([file_of(30_000)] * 3) == 2
    )
    assert ResourceManager(reading=memory.reading).get_optimal_workers([]) == 1


def test_a_file_that_cannot_fit_is_announced(memory, file_of, caplog):
    assert ResourceManager(reading=memory.reading).get_optimal_workers([file_of(30_000)]) == 1
    assert "expected to take 83.9 GiB, but 7.63 GiB may be used" in caplog.text


def test_without_files_the_cores_decide(memory):
    assert ResourceManager(reading=memory.reading).get_optimal_workers() == min(16, os.cpu_count())


def test_without_safety_memory_is_ignored_with_a_warning(memory, caplog):
    memory.available_bytes = 0
    assert (
        ResourceManager(safety_enabled=False, reading=memory.reading).get_optimal_workers() == os.cpu_count()
    )
    assert "safety is off" in caplog.text
    assert caplog.records[0].levelno == logging.WARNING
    assert get_optimal_workers(safety_enabled=False) == os.cpu_count()


def test_a_missing_file_is_refused(file_of):
    with pytest.raises(FileNotFoundError):
        get_optimal_workers(file_paths=["none.csv"])


@pytest.mark.parametrize("wrong", ["report.txt", b"report.txt", 7])
def test_one_path_where_a_list_is_meant_is_named(wrong):
    with pytest.raises(ValueError, match=r"file_paths is .*; give a list of paths"):
        get_optimal_workers(file_paths=wrong)


@pytest.mark.usefixtures("without_psutil")
def test_without_psutil_four_workers_and_an_assumed_machine_said_once(caplog):
    manager = ResourceManager()
    assert manager.get_optimal_workers() == 4
    status = manager.get_memory_status()
    assert status.total_bytes == 16_384 * MB
    assert status.available_bytes <= 8_192 * MB
    assert caplog.text.count("psutil is not installed") == 1


def test_the_status_names_the_limit_and_its_source(memory, caplog):
    caplog.set_level(logging.INFO, logger="pytest_membudget")
    manager = ResourceManager(reading=memory.reading)
    status = manager.get_memory_status()
    assert (status.limit_bytes, status.limit_source) == (16_384 * MB, "scripted")
    assert status.available_bytes == 8_192 * MB
    assert status.total_bytes > 0
    assert status.recommended_workers == manager.get_optimal_workers()
    manager.log_status()
    assert "7.63 GiB available of 15.3 GiB (scripted; the machine has" in caplog.text


def test_a_batch_is_previewed_with_its_own_estimator(memory, file_of):
    assert ResourceManager(reading=memory.reading).preview_batch([file_of(68)]).large_memory_bytes == 254 * MB


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"eta": 0}, "eta"),
        ({"gamma": -1}, "gamma"),
        ({"overhead": "x"}, "overhead"),
        ({"min_workers": 0}, "min_workers"),
        ({"min_workers": 5, "max_workers": 4}, "max_workers"),
        ({"fallback_workers": 1.5}, "fallback_workers"),
    ],
)
def test_a_nonsense_parameter_is_named(arguments, named):
    with pytest.raises(ValueError, match=named):
        ResourceManager(**arguments)
