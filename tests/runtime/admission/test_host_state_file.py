import os
import subprocess
import sys

import pytest

from pytest_membudget.errors import UnreadableFileError
from pytest_membudget.runtime.admission import host_state_file as store
from pytest_membudget.runtime.admission.host_ledger import HostClient, Owner
from pytest_membudget.runtime.admission.host_state_file import (
    HostStateFile,
    host_directory,
    is_alive,
    this_process,
)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="modes and links are POSIX's")


def client():
    return HostClient(id="a", owner=this_process(), budget_bytes=1, max_overtakes=0)


def test_what_one_transaction_writes_the_next_one_reads(tmp_path):
    shared = HostStateFile("nightly", tmp_path / "host")
    with shared.transaction() as state:
        state.clients.append(client())
    assert HostStateFile("nightly", tmp_path / "host").peek().clients == [client()]
    assert HostStateFile("other", tmp_path / "host").peek().clients == []


def test_a_transaction_that_raises_writes_nothing_and_frees_the_lock(tmp_path):
    shared = HostStateFile("nightly", tmp_path / "host")
    with pytest.raises(KeyboardInterrupt), shared.transaction() as state:
        state.clients.append(client())
        raise KeyboardInterrupt
    with shared.transaction() as state:
        assert state.clients == []


def test_the_directory_is_the_users_alone(tmp_path):
    HostStateFile("nightly", tmp_path / "host")
    assert (tmp_path / "host").stat().st_mode & 0o777 == 0o700
    (tmp_path / "open").mkdir(mode=0o755)
    with pytest.raises(UnreadableFileError, match="open to others"):
        HostStateFile("nightly", tmp_path / "open")


@pytest.mark.parametrize("ending", ["json", "lock", "new"])
def test_no_link_is_followed(tmp_path, ending):
    shared = HostStateFile("nightly", tmp_path / "host")
    target = tmp_path / "precious"
    target.write_text("precious")
    shared.path.with_suffix(f".{ending}").symlink_to(target)
    with pytest.raises(OSError, match="symbolic links"), shared.transaction() as state:
        state.clients.append(client())
    assert target.read_text() == "precious"
    (tmp_path / "link").symlink_to(tmp_path / "host")
    with pytest.raises(UnreadableFileError, match="not a plain directory"):
        HostStateFile("nightly", tmp_path / "link")


@pytest.mark.parametrize("ending", ["json", "lock", "new"])
@pytest.mark.parametrize("make", ["mkfifo", "mkdir"])
def test_what_is_no_plain_file_is_refused_with_its_path_and_waited_for_by_no_one(tmp_path, ending, make):
    shared = HostStateFile("nightly", tmp_path / "host")
    getattr(os, make)(shared.path.with_suffix(f".{ending}"))
    with (
        pytest.raises(UnreadableFileError, match=rf"nightly.*\.{ending} is not a plain file"),
        shared.transaction() as state,
    ):
        state.clients.append(client())


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ('{"x":' + "[" * 100_000, "nested too deep"),
        ('{"available_when_empty_bytes": -1}', r"`int` >= 0"),
        ('{"claims": [{"id": "a", "owner": [1, 1.0], "bytes": -5}]}', r"`int` >= 0"),
        ("\ufeff{}", "malformed"),
    ],
)
def test_nonsense_in_the_file_is_one_sentence_with_its_path(tmp_path, content, found):
    shared = HostStateFile("nightly", tmp_path / "host")
    shared.path.write_text(content + "\n")
    with pytest.raises(UnreadableFileError, match=rf"nightly.*{found}.*remove it"), shared.transaction():
        pass


@pytest.mark.parametrize("name", ["../../etc/passwd", "a/b", "", ".", "nightly\0", "ä" * 300])
def test_a_name_stays_inside_the_directory_and_apart_from_its_like(tmp_path, name):
    shared = HostStateFile(name, tmp_path / "host")
    with shared.transaction() as state:
        state.clients.append(client())
    assert shared.path.parent == tmp_path / "host"
    assert shared.path.exists()
    assert shared.path != HostStateFile(f"{name}!", tmp_path / "host").path


def test_a_foreign_file_is_refused_with_its_path(tmp_path):
    shared = HostStateFile("nightly", tmp_path / "host")
    shared.path.write_text('{"format": "something else"}')
    with (
        pytest.raises(UnreadableFileError, match=r"nightly.*remove it when no program"),
        shared.transaction(),
    ):
        pass


def test_a_file_of_another_boot_or_cut_short_by_a_crash_begins_anew(tmp_path, monkeypatch):
    shared = HostStateFile("nightly", tmp_path / "host")
    with shared.transaction() as state:
        state.clients.append(client())
    monkeypatch.setattr(store, "boot_id", lambda: "another boot")
    with shared.transaction() as state:
        assert state.clients == []
    shared.path.write_bytes(bytes(500))
    with shared.transaction() as state:
        assert state.clients == []


@pytest.mark.parametrize("killed_at", ["write", "unlink", "rename"])
def test_a_program_killed_while_it_writes_leaves_the_old_state_or_the_new_one(
    tmp_path, monkeypatch, killed_at
):
    shared = HostStateFile("nightly", tmp_path / "host")
    with shared.transaction() as state:
        state.available_when_empty_bytes = 1

    def killed(*arguments, **options):
        raise SystemExit

    with monkeypatch.context() as patched:
        if killed_at == "write":
            patched.setattr(store, "_END", b"")
        patched.setattr(store.Path, "rename" if killed_at == "rename" else "unlink", killed)
        with pytest.raises(SystemExit), shared.transaction() as state:
            state.available_when_empty_bytes = 2
    assert shared.peek().available_when_empty_bytes == (2 if killed_at == "rename" else 1)
    with shared.transaction() as state:
        state.available_when_empty_bytes += 10
    assert shared.peek().available_when_empty_bytes == (12 if killed_at == "rename" else 11)


def test_the_very_first_write_may_be_cut_short(tmp_path):
    shared = HostStateFile("nightly", tmp_path / "host")
    shared.path.with_suffix(".new").write_text('{"format":"membudget-host-l')
    with shared.transaction() as state:
        assert state.clients == []


def test_a_lock_file_that_was_removed_does_not_let_two_in(tmp_path):
    shared = HostStateFile("nightly", tmp_path / "host")
    lock = shared.path.with_suffix(".lock")
    with shared.transaction() as state:
        state.clients.append(client())
        lock.unlink()
    with shared.transaction() as state:
        assert state.clients == [client()]
        assert lock.exists()


def test_a_lock_that_never_comes_free_says_which(tmp_path, monkeypatch):
    shared = HostStateFile("nightly", tmp_path / "host")
    monkeypatch.setattr(store, "LOCK_WAIT_S", 0.0)
    with (
        shared.transaction(),
        pytest.raises(TimeoutError, match=r"nightly.*\.lock has been locked"),
        shared.transaction(),
    ):
        pass


def test_programs_meet_below_the_runtime_directory_or_the_temporary_one(tmp_path, monkeypatch):
    monkeypatch.delenv("MEMBUDGET_HOST_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert host_directory() == tmp_path / "pytest-membudget"
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "none"))
    assert host_directory().name == f"pytest-membudget-{os.getuid()}"
    monkeypatch.setenv("MEMBUDGET_HOST_DIRECTORY", str(tmp_path / "named"))
    assert host_directory() == tmp_path / "named"


@pytest.mark.processes
def test_a_process_is_known_by_its_number_and_its_start():
    here = this_process()
    assert is_alive(here)
    assert not is_alive(Owner(here.pid, here.started + 1))
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    owner = Owner(child.pid, store._started(child.pid))
    assert is_alive(owner)
    assert store._started_by_psutil(child.pid) is not None
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not is_alive(owner), "killed, and not waited for"
    assert store._started_by_psutil(child.pid) is None
    child.communicate()
    assert not is_alive(owner)
    assert store._started_by_psutil(child.pid) is None
