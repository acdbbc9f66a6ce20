import pytest

from pytest_membudget.errors import UsageError
from pytest_membudget.records.report import Report
from pytest_membudget.report.writing import check_report_path, load_report, write_report


def test_the_ending_picks_the_format(report, tmp_path):
    for ending, beginning in ((".md", "# Memory report"), (".json", "{"), (".MD", "# Memory report")):
        path = tmp_path / f"report{ending}"
        write_report(report, path)
        assert path.read_text().startswith(beginning)


def test_another_ending_is_a_usage_error_that_shows_one_that_works(report, tmp_path):
    for call in (lambda path: write_report(report, path), check_report_path):
        with pytest.raises(UsageError, match=r"report\.pdf' ends in none of \.md, \.json.* write report\."):
            call(tmp_path / "report.pdf")


def test_a_good_path_is_left_as_it_was(tmp_path):
    path = tmp_path / "report.json"
    check_report_path(path)
    path.write_text("old")
    check_report_path(path)
    assert [(entry.name, entry.read_text()) for entry in tmp_path.iterdir()] == [("report.json", "old")]


def test_a_missing_folder_is_made(tmp_path):
    check_report_path(tmp_path / "early" / "report.json")
    assert (tmp_path / "early").is_dir()
    write_report(Report(), tmp_path / "out" / "memory" / "report.json")
    assert load_report(tmp_path / "out" / "memory" / "report.json").tests == ()


def test_a_folder_below_a_file_fails_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        check_report_path(tmp_path / "file" / "report.json")


def test_a_directory_is_no_report(tmp_path):
    (tmp_path / "report.json").mkdir()
    with pytest.raises(UsageError, match="is a directory"):
        check_report_path(tmp_path / "report.json")


def test_a_folder_that_cannot_be_written_fails_at_once():
    # Not even root can make files in /proc.
    with pytest.raises(UsageError, match="cannot be written"):
        check_report_path("/proc/report.json")
