import errno
import os
from pathlib import Path

import pytest

from pytest_membudget.errors import UnreadableFileError
from pytest_membudget.records.report import Report, TestRecord
from pytest_membudget.records.storage import encode_json, private_directory, read_json, write_atomically


def test_a_report_reads_back_as_it_was_written(tmp_path):
    report = Report(tests=(TestRecord(nodeid="test_a.py::test[<b>]", outcome="passed", peak_bytes=5),))
    path = tmp_path / "report.json"
    write_atomically(path, encode_json(report))
    assert read_json(path, Report, what="a report") == report


def test_writing_keeps_the_mode_and_follows_a_link(tmp_path):
    target, link = tmp_path / "kept.json", tmp_path / "link.json"
    target.write_text("old")
    target.chmod(0o640)
    link.symlink_to(target)
    write_atomically(link, "new")
    assert (target.read_text(), target.stat().st_mode & 0o777, link.is_symlink()) == ("new", 0o640, True)


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "report.json"
    path.write_text("old")

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*report\.json'"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["report.json"]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        '{"format": "other"}',
        '{"version": 2}',
        '{"tests": 5}',
        '{"tests": [{"nodeid": NaN}]}',
        "[" * 10**5,
    ],
)
def test_a_bad_file_is_one_sentence_that_names_it(tmp_path, content):
    path = tmp_path / "report.json"
    path.write_text(content)
    with pytest.raises(UnreadableFileError, match=r"report\.json is not a report") as caught:
        read_json(path, Report, what="a report")
    assert "\n" not in str(caught.value)


def test_a_huge_file_is_refused_unread(tmp_path):
    path = tmp_path / "huge.json"
    with path.open("wb") as stream:
        stream.truncate(1024**3)
    with pytest.raises(UnreadableFileError, match="more than the 256 MiB"):
        read_json(path, Report, what="a report")


def test_a_private_directory_is_0700_and_no_link(tmp_path):
    made = private_directory(tmp_path / "deep" / "state")
    assert made.stat().st_mode & 0o777 == 0o700
    link = tmp_path / "link"
    link.symlink_to(made)
    with pytest.raises(UnreadableFileError, match="not a plain directory"):
        private_directory(link)
    made.chmod(0o755)
    with pytest.raises(UnreadableFileError, match="chmod 700"):
        private_directory(made)
    Path(made).chmod(0o700)
    assert private_directory(made) == made


def test_an_unresolved_merge_is_named(tmp_path):
    file = tmp_path / "memory.json"
    file.write_text('{\n  "tests": [\n<<<<<<< HEAD\n    {}\n=======\n    {}\n>>>>>>> other\n  ]\n}\n')
    with pytest.raises(
        UnreadableFileError, match="line 3 begins a merge that nobody has resolved; keep one side"
    ):
        read_json(file, Report, what="a membudget baseline")
