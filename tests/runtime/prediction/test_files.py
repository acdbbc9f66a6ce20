import logging
from pathlib import Path

import pytest

from pytest_membudget import FileCategory, MemoryEstimator, ResourceEstimate, classify_file, get_file_estimate
from pytest_membudget.runtime.prediction.files import FileClasses, preview_batch

MB = 1_000_000


@pytest.fixture
def file_of(tmp_path):
    """Makes sparse files: as large as asked for, and empty of bytes."""

    def make(size_mb, name=None):
        path = tmp_path / (name or f"{size_mb}MB")
        with path.open("wb") as stream:
            stream.truncate(round(size_mb * MB))
        return path

    return make


@pytest.mark.parametrize(
    ("size_mb", "category"),
    [
        (10.0, "small"),
        (19.9, "small"),
        (20, "medium"),
        (20.1, "medium"),
        (30, "medium"),
        (49.9, "medium"),
        (50, "medium"),
        (50.1, "large"),
        (68, "large"),
    ],
)
def test_files_fall_into_the_references_categories(file_of, size_mb, category):
    assert classify_file(file_of(size_mb)) is FileCategory(category)


@pytest.mark.parametrize(
    ("size_mb", "expected"),
    [
        (10, ResourceEstimate(10 * MB, FileCategory.SMALL, 620 * MB, 600, "shared")),
        (30, ResourceEstimate(30 * MB, FileCategory.MEDIUM, 860 * MB, 1200, "shared")),
        (68, ResourceEstimate(68 * MB, FileCategory.LARGE, 1316 * MB, 2400, "isolated")),
    ],
)
def test_a_file_is_estimated_as_in_the_reference(file_of, size_mb, expected):
    assert get_file_estimate(file_of(size_mb)) == expected


def test_thresholds_time_limits_and_estimator_are_the_callers(file_of):
    classes = FileClasses(medium_from_bytes=1 * MB, large_above_bytes=2 * MB, large_timeout_s=5)
    estimate = get_file_estimate(file_of(3), MemoryEstimator(gamma=2, overhead="1 MB"), classes)
    assert estimate == ResourceEstimate(3 * MB, FileCategory.LARGE, 7 * MB, 5, "isolated")


def test_a_missing_file_and_a_nonsense_path_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError):
        get_file_estimate(tmp_path / "none.csv")
    with pytest.raises(ValueError, match="path is 3"):
        classify_file(3)
    with pytest.raises(ValueError, match="directory"):
        classify_file(tmp_path)


@pytest.mark.parametrize("wrong", [{"medium_from_bytes": 60 * MB}, {"small_timeout_s": 0}])
def test_nonsense_classes_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        FileClasses(**wrong)


def test_a_batch_is_previewed_in_the_log(file_of, caplog):
    caplog.set_level(logging.INFO, logger="pytest_membudget")
    paths = [
        file_of(size, f"{size}-{n}") for size, count in ((1, 30), (30, 15), (68, 5)) for n in range(count)
    ]
    preview = preview_batch(paths)
    assert (preview.small, preview.medium, preview.large) == (30, 15, 5)
    assert preview.timeout_s == 2400
    assert preview.large_memory_bytes == 6580 * MB
    assert "50 files: 30 small, 15 medium, 5 large; up to 2400 s a file" in caplog.text
    assert "5 large files: estimated peak 6.13 GiB (6,580 MB)" in caplog.text


def test_a_hundred_small_files_get_the_short_time_limit(file_of):
    assert preview_batch([file_of(1)] * 100).timeout_s == 600


def test_a_batch_that_cannot_be_classified_gets_1200_s_and_says_so(tmp_path, file_of, caplog):
    assert preview_batch([Path("none.csv"), file_of(1)]).timeout_s == 1200
    assert "files that could not be looked at: 1" in caplog.text
    assert preview_batch([]).timeout_s == 1200
    assert preview_batch(["none.csv", file_of(68)]).timeout_s == 2400
