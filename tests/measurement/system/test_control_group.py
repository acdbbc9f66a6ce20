import os
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_membudget.measurement.system.control_group import make_control_group

MOUNTS = {
    1: "30 24 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n",
    2: "30 24 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
}
MEMBERSHIP = {1: "4:memory:/job\n", 2: "0::/job\n"}
JOB = {1: "sys/fs/cgroup/memory/job", 2: "sys/fs/cgroup/job"}


@pytest.fixture(params=[1, 2])
def machine(request, tmp_path):
    """The version, and a machine with a group of that version in which this process is."""
    version = request.param
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(MEMBERSHIP[version])
    (tmp_path / "proc/self/mountinfo").write_text(MOUNTS[version])
    (tmp_path / JOB[version]).mkdir(parents=True)
    (tmp_path / JOB[version] / "cgroup.subtree_control").write_text("memory pids\n")
    (tmp_path / JOB[version] / "cgroup.procs").touch()
    return version, tmp_path


def delegated(root, own="user.slice/app.slice/job.scope", *, handed_down="memory pids"):
    """A group of version 2 that belongs to systemd's manager of a user, and our own below it, which has processes."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(f"0::/{own}\n")
    (root / "proc/self/mountinfo").write_text(MOUNTS[2])
    own = root / "sys/fs/cgroup" / own
    own.mkdir(parents=True)
    for group in (own, own.parent):
        (group / "cgroup.procs").touch()
        (group / "cgroup.controllers").write_text("cpu memory pids\n")
        (group / "memory.max").write_text("max\n")
        (group / "cpu.max").write_text("max 100000\n")
    # The kernel refuses writes here while the group has processes (EBUSY).
    (own / "cgroup.subtree_control").mkdir()
    (own.parent / "cgroup.subtree_control").write_text(f"{handed_down}\n")
    return own


def made_in(directory):
    return [path for path in directory.iterdir() if path.name.startswith("membudget-")]


@pytest.mark.parametrize("handed_down", ["memory pids", "pids"])
def test_where_our_own_group_has_processes_the_new_one_stands_beside_it(tmp_path, handed_down):
    own = delegated(tmp_path, handed_down=handed_down)
    group = make_control_group(100_000_000, tmp_path)
    assert (made_in(own), made_in(own.parent)) == ([], [group.entrance.parent])
    if handed_down == "pids":
        assert (own.parent / "cgroup.subtree_control").read_text() == "+memory"


@pytest.mark.parametrize(("name", "limit"), [("memory.max", "500000000"), ("cpu.max", "50000 100000")])
def test_no_group_evades_a_limit_of_our_own(tmp_path, name, limit):
    own = delegated(tmp_path)
    (own / name).write_text(f"{limit}\n")
    assert make_control_group(100_000_000, tmp_path) is None
    assert made_in(own.parent) == []


def test_no_group_is_made_beside_our_own_where_no_process_may_be_moved_there(tmp_path):
    own = delegated(tmp_path)
    (own.parent / "cgroup.procs").unlink()
    assert make_control_group(100_000_000, tmp_path) is None


def test_a_group_is_made_below_our_own_with_the_limit(machine):
    version, root = machine
    assert make_control_group(100_000_000, root) is not None
    (made,) = [path for path in (root / JOB[version]).iterdir() if path.is_dir()]
    settings = {path.name: path.read_text() for path in made.iterdir()}
    assert (
        settings
        == {
            1: {
                "memory.limit_in_bytes": "100000000",
                "memory.memsw.limit_in_bytes": "100000000",
                "memory.oom_control": "1",
            },
            2: {"memory.max": "100000000", "memory.oom.group": "1", "memory.swap.max": "0"},
        }[version]
    )


def test_at_its_limit_is_what_the_kernel_says(machine):
    version, root = machine
    group = make_control_group(100_000_000, root)
    name = {1: "memory.oom_control", 2: "memory.events"}[version]
    quiet = {1: "oom_kill_disable 1\nunder_oom 0\noom_kill 0\n", 2: "low 0\nmax 7\noom 1\noom_kill 0\n"}[
        version
    ]
    ended = {1: "oom_kill_disable 1\nunder_oom 1\noom_kill 0\n", 2: "low 0\nmax 9\noom 2\noom_kill 3\n"}[
        version
    ]
    (group.entrance.parent / name).write_text(quiet)
    assert not group.has_reached_limit()
    (group.entrance.parent / name).write_text(ended)
    assert group.has_reached_limit()


def test_a_group_may_begin_without_a_limit_and_change_it(machine):
    version, root = machine
    group = make_control_group(None, root, stands_still=False)
    name = {1: "memory.limit_in_bytes", 2: "memory.max"}[version]
    limit = group.entrance.parent / name
    without = limit.read_text()
    group.set_limit(90_000_000)
    assert limit.read_text() == "90000000"
    group.set_limit(None)
    assert limit.read_text() == without == {1: str(2**62), 2: "max"}[version]
    assert not (group.entrance.parent / "memory.oom_control").exists()
    assert group.address == (version, str(group.entrance.parent))


def test_page_cache_that_can_be_given_up_is_not_used(machine):
    version, root = machine
    group = make_control_group(None, root)
    usage = {1: "memory.usage_in_bytes", 2: "memory.current"}[version]
    (group.entrance.parent / usage).write_text("90000000\n")
    (group.entrance.parent / "memory.stat").write_text("inactive_file 20000000\nactive_file 10000000\n")
    assert group.used_bytes() == 60_000_000


def test_where_none_may_be_made_there_is_none(machine, monkeypatch):
    _, root = machine
    monkeypatch.setattr("pathlib.Path.mkdir", refuse)
    assert make_control_group(100_000_000, root) is None
    assert make_control_group(100_000_000, root / "nowhere") is None


def test_without_a_delegated_memory_controller_there_is_none_of_version_2(machine):
    version, root = machine
    (root / JOB[version] / "cgroup.subtree_control").write_text("pids\n")
    assert (make_control_group(100_000_000, root) is None) == (version == 2)


def test_a_group_that_takes_no_limit_is_removed(machine, monkeypatch):
    version, root = machine
    monkeypatch.setattr("pathlib.Path.write_text", refuse)
    assert make_control_group(100_000_000, root) is None
    assert [path for path in (root / JOB[version]).iterdir() if path.is_dir()] == []


def test_what_a_killed_program_left_is_removed_by_the_next(machine):
    version, root = machine
    left, other = (
        root / JOB[version] / name for name in ("membudget-123-abcd", f"membudget-{os.getpid()}-abcd")
    )
    left.mkdir()
    other.mkdir()
    (root / "proc" / str(os.getpid())).mkdir()
    make_control_group(100_000_000, root)
    assert (left.exists(), other.exists()) == (False, True)


def refuse(*_, **__):
    raise PermissionError


@pytest.mark.kernel
@pytest.mark.processes
@pytest.mark.skipif(sys.platform != "linux", reason="control groups are Linux's")
def test_the_kernel_holds_a_process_at_the_limit_until_the_group_is_ended():
    group = make_control_group(60_000_000)
    if group is None:
        pytest.skip("this process may make no control group")
    code = f"""
import os
open({str(group.entrance)!r}, "w").write(str(os.getpid()))
block = bytes(b"1") * 500_000_000
"""
    try:
        held = subprocess.Popen([sys.executable, "-I", "-S", "-c", code])
        while held.poll() is None and not group.has_reached_limit():
            pass
        assert group.has_reached_limit()
        resident = int(Path(f"/proc/{held.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
        group.kill()
        assert held.wait(30) == -9
        assert resident < 80_000_000
    finally:
        group.close()
    assert not group.entrance.parent.exists()
