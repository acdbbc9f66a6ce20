"""The reader of /proc."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pytest_membudget.measurement.process import proc

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /proc")

GONE = 2**22 + 1
"""No process has this number: the kernel's largest is 2**22."""


@on_linux
def test_a_process_that_is_gone_holds_nothing_and_has_nothing():
    assert proc.sizes(GONE) is proc.stat(GONE) is proc.proportional_bytes(GONE) is None
    assert not (proc.children_of(GONE) or proc.threads(GONE) or proc.open_files(GONE))
    assert not (proc.mapped_files(GONE) or proc.read(GONE, "maps"))


@on_linux
def test_a_name_with_blanks_and_brackets_does_not_move_the_fields(tmp_path):
    program = tmp_path / "a) Z 1 (b"
    program.symlink_to("/bin/sleep")
    with subprocess.Popen([str(program), "60"]) as child:
        status = proc.stat(child.pid)
        child.kill()
    assert status is not None
    assert (status.parent, status.threads, status.has_ended) == (os.getpid(), 1, False)
    assert not status.is_of_the_kernel


@on_linux
def test_a_child_that_was_not_waited_for_has_ended_and_is_still_a_child():
    child = subprocess.Popen(["true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    status = proc.stat(child.pid)
    assert status is not None
    assert status.has_ended
    assert child.pid in proc.children_of(os.getpid())
    child.wait()
    assert child.pid not in proc.children_of("self")


@on_linux
def test_threads_and_open_files_have_the_names_that_the_kernel_gives(tmp_path):
    (tmp_path / "held").touch()
    release = threading.Event()
    thread = threading.Thread(target=release.wait)
    thread.start()
    with (tmp_path / "held").open() as file:
        assert proc.open_files()[file.fileno()] == str(tmp_path / "held")
        assert set(proc.open_files()) < set(proc.descriptors())  # the listing's own is closed by then
    assert {os.getpid(), thread.native_id} <= proc.thread_names().keys()
    assert proc.thread_names()[os.getpid()] == Path("/proc/self/comm").read_text().strip()
    release.set()
    thread.join()


@on_linux
def test_mapped_files_are_paths_and_nothing_else():
    found = proc.mapped_files()
    assert any(Path(path).name.startswith("libc") for path in found)
    assert all(path.startswith("/") for path in found)


def test_a_field_is_found_at_the_start_of_its_line_alone():
    status = b"Name:\tVmHWM: 9 kB\nVmHWM:\t   12 kB\nVmRSS:\t 8 kB\n"
    assert proc.field_bytes(status, b"VmHWM") == 12 * 1024
    assert proc.field_bytes(status, b"RssShmem") == 0


def test_a_mount_with_blanks_in_its_path_and_optional_fields():
    lines = (
        r"36 35 98:0 /sub\040dir /mnt/a\134b rw,noatime shared:1 master:2 - tmpfs none rw,size=4k",
        "no mount at all",
        "24 1 0:22 / /proc rw - proc proc rw,hidepid=2",
    )
    first, second = proc.parse_mounts("\n".join(lines))
    assert first == proc.Mount(os.makedev(98, 0), "/sub dir", r"/mnt/a\b", "tmpfs", "rw,size=4k")
    assert (second.point, second.kind, second.options) == ("/proc", "proc", "rw,hidepid=2")


@on_linux
def test_a_file_that_is_kept_open_is_never_another_one(tmp_path):
    kept = proc.KeptOpen("statm")
    descriptor = kept.descriptor()
    with (tmp_path / "theirs").open("w") as theirs:
        os.dup2(theirs.fileno(), descriptor)
        again = kept.descriptor()
        assert proc.open_files()[again].endswith("/statm")
        kept.close()
        os.fstat(descriptor)  # theirs is open still
    os.close(descriptor)


@on_linux
def test_a_file_that_was_kept_open_is_closed_for_good():
    kept = proc.KeptOpen("statm")
    descriptor = kept.descriptor()
    kept.close()
    with pytest.raises(OSError, match="descriptor"):
        os.fstat(descriptor)
    kept.close()
    assert os.pread(kept.descriptor(), 128, 0)
    kept.close()
