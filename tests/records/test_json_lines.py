"""Lines of several programs: none lost, none mixed, and half a line spoils no other."""

import errno
import os
import signal
import subprocess
import sys
import textwrap

import pytest

from pytest_membudget.records.json_lines import add_line, read_lines, rewrite

ONLY_POSIX = pytest.mark.skipif(sys.platform == "win32", reason="file locks are POSIX's here")


def lines(path):
    return list(read_lines(path, most_bytes=1000))


def test_lines_come_back_in_their_order_from_a_file_of_this_user_alone(tmp_path):
    path = tmp_path / "lines"
    for each in (b"one", b"two"):
        add_line(path, each)
    assert lines(path) == [b"one", b"two"]
    if os.name == "posix":
        assert path.stat().st_mode & 0o777 == 0o600


def test_half_a_line_at_the_end_stays_a_line_of_its_own(tmp_path):
    path = tmp_path / "lines"
    path.write_bytes(b"one\ntw")
    add_line(path, b"three")
    assert lines(path) == [b"one", b"tw", b"three"]


def test_a_line_that_is_too_long_is_cut_and_the_next_is_whole(tmp_path):
    path = tmp_path / "lines"
    path.write_bytes(b"x" * 5000 + b"\nnext\n")
    long, after = lines(path)
    assert (len(long), after) == (1001, b"next")


def test_a_disk_that_fills_up_leaves_nothing_of_the_line(tmp_path, monkeypatch):
    path = tmp_path / "lines"
    path.write_bytes(b"one\ntorn")
    write = os.write

    def fills_up(descriptor, data):
        if len(data) < 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data[:-2])

    monkeypatch.setattr(os, "write", fills_up)
    with pytest.raises(OSError, match="No space"):
        add_line(path, b"second line")
    assert path.read_bytes() == b"one\ntorn"


def test_a_change_that_cannot_be_written_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "lines"
    add_line(path, b"one")

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        rewrite(path, lambda _: [])
    assert lines(path) == [b"one"]


@ONLY_POSIX
@pytest.mark.processes
def test_two_writers_and_one_that_removes_lose_no_line(tmp_path):
    path = tmp_path / "lines"
    path.touch()
    code = """
        import sys
        from pytest_membudget.records.json_lines import add_line

        for number in range(400):
            add_line(sys.argv[1], f"{sys.argv[2]} {number}".encode())
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(path)]
    writers = [subprocess.Popen([*command, name]) for name in "ab"]
    taken = []

    def take(before):
        taken.extend(before)
        return []

    while any(writer.poll() is None for writer in writers):
        rewrite(path, take)
    taken += lines(path)
    assert sorted(taken) == sorted(f"{name} {number}".encode() for name in "ab" for number in range(400))


@ONLY_POSIX
@pytest.mark.processes
def test_a_writer_that_was_killed_holds_no_lock(tmp_path):
    path = tmp_path / "lines"
    code = """
        import os, sys
        from pytest_membudget.records import json_lines

        with json_lines._locked(sys.argv[1]) as descriptor:
            os.write(descriptor, b"half a li")
            os.kill(os.getpid(), 9)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code), str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    add_line(path, b"next")
    assert lines(path) == [b"half a li", b"next"]
