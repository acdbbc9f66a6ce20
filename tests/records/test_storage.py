import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec
import pytest

from pytest_membudget.errors import UnreadableFileError
from pytest_membudget.records.report import Report, TestRecord, encode_report, read_report
from pytest_membudget.records.storage import (
    encode_json,
    encode_line,
    from_here,
    private_directory,
    read_json,
    replacing,
    working_folder,
    write_atomically,
)


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


def test_a_folder_that_is_missing_names_the_file_that_was_asked_for(tmp_path):
    with pytest.raises(FileNotFoundError) as raised, replacing(tmp_path / "missing" / "file"):
        pass
    assert raised.value.filename == str(tmp_path / "missing" / "file")


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
        UnreadableFileError, match="line 3 begins a merge that is not resolved; keep one side"
    ):
        read_json(file, Report, what="a membudget baseline")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\xef\xbb\xbf{}", "byte order mark"),
        ("{}".encode("utf-16"), "UTF-16"),
        ("{}".encode("utf-16-be"), "UTF-16"),
        (b"<<<<<<< HEAD\n{}\n", "line 1 begins a merge"),
        (b'{"version": ' + b"9" * 5000 + b"}", "out of range|is not"),
        (b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "too deep"),
        (b'{"x": [' + b"[]," * 5_000_001 + b"[]]}", "5,000,00. lists and objects, more than"),
    ],
    ids=["mark", "utf-16", "utf-16-be", "conflict", "digits", "depth", "lists"],
)
def test_what_no_reader_could_bear_is_named_with_its_file(tmp_path, content, words):
    path = tmp_path / "memory.json"
    path.write_bytes(content)
    with pytest.raises(UnreadableFileError, match=words) as caught:
        read_report(path)
    assert "memory.json" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not Path("/proc/kmsg").exists(), reason="only Linux has such a file")
def test_a_file_of_the_kernels_is_refused_unread():
    with pytest.raises(UnreadableFileError, match="/proc/kmsg is not a plain file"):
        read_report("/proc/kmsg")


def test_control_characters_that_terminals_obey_are_escapes_in_json(tmp_path):
    record = TestRecord(nodeid="a\x9b31m", outcome="passed", message="\udcff")
    line = encode_line(record)
    assert b"\xc2\x9b" not in line
    assert msgspec.json.decode(line, type=TestRecord).nodeid == record.nodeid
    assert b"\xc2\x9b" not in encode_report(Report(tests=(record,)))


@pytest.mark.processes
@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="files without a name are Linux's")
def test_a_writer_that_is_killed_leaves_nothing(tmp_path):
    code = (
        "import os, signal, sys\n"
        "from pytest_membudget.records.storage import replacing\n"
        "with replacing(sys.argv[1]) as stream:\n"
        "    stream.write(b'x' * 100_000)\n"
        "    stream.flush()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "big.csv")], check=False)
    assert os.listdir(tmp_path) == []


@pytest.mark.processes
@pytest.mark.skipif(sys.platform == "win32", reason="needs locks of folders")
def test_a_working_folder_goes_with_its_block_and_that_of_a_killed_program_at_the_next_start(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    code = (
        "import os, signal\n"
        "from pytest_membudget.records.storage import working_folder\n"
        "with working_folder('tests') as folder:\n"
        "    (folder / 'large.csv').touch()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=False, env=os.environ | {"TMPDIR": str(tmp_path)})
    (killed,) = tmp_path.iterdir()
    assert (killed / "large.csv").exists()
    with working_folder("tests") as alive:
        assert os.listdir(tmp_path) == [alive.name]
        with pytest.raises(KeyboardInterrupt), working_folder("tests") as folder:
            assert folder != alive
            assert folder.is_dir()
            raise KeyboardInterrupt
        assert os.listdir(tmp_path) == [alive.name]


def test_parts_that_killed_writers_left_long_ago_are_removed(tmp_path):
    old, young, other = (
        tmp_path / name for name in (f".a.json.{'0' * 16}.part", f".a.json.{'1' * 16}.part", ".b.json.part")
    )
    for each in (old, young, other):
        each.write_text("part")
    os.utime(old, (1, 1))
    write_atomically(tmp_path / "a.json", "whole")
    assert sorted(os.listdir(tmp_path)) == sorted([young.name, other.name, "a.json"])


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can make another user's link"
)
def test_another_users_link_in_a_folder_open_to_all_is_not_followed(tmp_path):
    folder, target = tmp_path / "open", tmp_path / "kept.json"
    folder.mkdir()
    folder.chmod(0o1777)
    target.write_text("old")
    link = folder / "report.json"
    link.symlink_to(target)
    os.lchown(link, 65534, 65534)
    with pytest.raises(OSError, match="another user's link"):
        write_atomically(link, "new")
    assert target.read_text() == "old"


def test_what_lies_below_the_working_directory_is_told_from_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert from_here(tmp_path / "out" / "a.md") == str(Path("out", "a.md"))
    assert from_here(Path("a.md")) == "a.md"
    assert from_here("/elsewhere/a.md") == "/elsewhere/a.md"
