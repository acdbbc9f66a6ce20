"""Recorded trees: what containers of several makers show under /proc and /sys."""

import builtins
import contextlib
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_membudget.measurement.system import control_group, machine
from pytest_membudget.measurement.system.control_group import Constraint

GB = 10**9
HOST = Constraint(64 * GB, 24 * GB, "host memory")
NO_LIMIT_V1 = "9223372036854771712\n"


def tree(root, membership, mounts, files):
    contents = {"proc/self/cgroup": membership, "proc/self/mountinfo": mounts, **files}
    for name, text in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def reading(root):
    return machine.memory_reading(root, host=lambda: HOST, address_space=lambda: None)


V2_MOUNT = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
V1_MOUNT = "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"


def test_without_any_cgroup_the_host_is_the_limit(tmp_path):
    found = reading(tmp_path)
    assert (found.limit.bytes, found.limit.source) == (64 * GB, "host memory")
    assert found.available_bytes == 40 * GB


def test_version_2_binds_by_its_tightest_ancestor(tmp_path):
    base = "sys/fs/cgroup/user.slice"
    found = reading(
        tree(
            tmp_path,
            "0::/user.slice/app.scope\n",
            V2_MOUNT,
            {
                f"{base}/memory.max": f"{8 * GB}\n",
                f"{base}/memory.current": f"{5 * GB}\n",
                f"{base}/memory.stat": f"anon {GB}\ninactive_file {2 * GB}\nactive_file {GB}\nshmem 1\n",
                f"{base}/app.scope/memory.max": "max\n",
                f"{base}/app.scope/memory.current": f"{GB}\n",
            },
        )
    )
    assert found.limit.bytes == 8 * GB
    assert found.limit.source == "cgroup v2 /user.slice memory.max"
    assert found.available_bytes == 6 * GB  # 5 GB of usage, 3 GB of which are page cache


def test_the_most_crowded_limit_need_not_be_the_lowest_one(tmp_path):
    found = reading(
        tree(
            tmp_path,
            "0::/a/b\n",
            V2_MOUNT,
            {
                "sys/fs/cgroup/a/memory.max": f"{10 * GB}\n",
                "sys/fs/cgroup/a/memory.current": f"{9 * GB}\n",
                "sys/fs/cgroup/a/b/memory.max": f"{4 * GB}\n",
                "sys/fs/cgroup/a/b/memory.current": f"{GB}\n",
            },
        )
    )
    assert found.limit.bytes == 4 * GB
    assert found.available_bytes == GB


def test_a_group_is_throttled_above_memory_high(tmp_path):
    files = {"sys/fs/cgroup/a/memory.max": f"{8 * GB}\n", "sys/fs/cgroup/a/memory.high": f"{6 * GB}\n"}
    assert reading(tree(tmp_path, "0::/a\n", V2_MOUNT, files)).limit.source == "cgroup v2 /a memory.high"


def test_version_1_reads_hierarchical_figures_and_knows_its_no_limit(tmp_path):
    base = "sys/fs/cgroup/memory"
    found = reading(
        tree(
            tmp_path,
            "5:memory,hugetlb:/docker/abc\n1:name=systemd:/docker/abc\n0::/\n",
            V1_MOUNT.replace("rw,memory", "rw,memory,hugetlb"),
            {
                f"{base}/memory.limit_in_bytes": NO_LIMIT_V1,
                f"{base}/docker/abc/memory.limit_in_bytes": f"{2 * GB}\n",
                f"{base}/docker/abc/memory.usage_in_bytes": f"{GB}\n",
                f"{base}/docker/abc/memory.stat": f"inactive_file 5\ntotal_inactive_file {GB // 2}\n",
            },
        )
    )
    assert found.limit.source == "cgroup v1 /docker/abc memory.limit_in_bytes"
    assert found.available_bytes == 2 * GB - GB // 2


def test_a_container_that_mounts_only_its_own_group(tmp_path):
    mounts = "35 31 0:32 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"
    files = {"sys/fs/cgroup/memory/memory.limit_in_bytes": f"{GB}\n"}
    assert reading(tree(tmp_path, "5:memory:/docker/abc\n", mounts, files)).limit.bytes == GB


@pytest.mark.parametrize("path", ["/", "/../../other.scope"])
def test_a_cgroup_namespace_shows_the_mount_point_as_the_group(tmp_path, path):
    mounts = V2_MOUNT.replace(" / /sys", " /../.. /sys") if path != "/" else V2_MOUNT
    files = {"sys/fs/cgroup/memory.max": f"{GB}\n"}
    assert reading(tree(tmp_path, f"0::{path}\n", mounts, files)).limit.bytes == GB


def test_a_mount_point_with_a_blank_in_its_name(tmp_path):
    mounts = V2_MOUNT.replace("/sys/fs/cgroup", r"/my\040groups")
    assert reading(tree(tmp_path, "0::/a\n", mounts, {"my groups/a/memory.max": "77\n"})).limit.bytes == 77


def test_unreadable_lines_are_passed_over(tmp_path):
    root = tree(tmp_path, "garbage\n0::/a\n", "x\n - \n" + V2_MOUNT, {"sys/fs/cgroup/a/memory.max": "soon\n"})
    assert reading(root).limit.source == "host memory"


def test_the_address_space_counts_what_is_mapped(tmp_path):
    found = machine.memory_reading(
        tmp_path, host=lambda: HOST, address_space=lambda: Constraint(3 * GB, GB, "RLIMIT_AS")
    )
    assert (found.limit.source, found.available_bytes) == ("RLIMIT_AS", 2 * GB)


def test_available_is_never_negative(tmp_path):
    found = machine.memory_reading(
        tmp_path, host=lambda: Constraint(10, 12, "host memory"), address_space=lambda: None
    )
    assert found.available_bytes == 0


def test_without_psutil_it_assumes_and_says_so_once(monkeypatch, caplog):
    original = builtins.__import__

    def without_psutil(name, *rest, **kwargs):
        if name == "psutil":
            raise ImportError(name)
        return original(name, *rest, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_psutil)
    machine._say_assumed_once.cache_clear()
    with caplog.at_level(logging.WARNING):
        found = [machine.host_memory() for _ in range(3)]
    assert found[0][:2] == (16_384_000_000, 8_192_000_000)
    assert len(caplog.records) == 1


SHOW_LIMIT = "from pytest_membudget import memory_limit; m = memory_limit(); print(m.bytes, m.source)"


@pytest.mark.kernel
@pytest.mark.processes
def test_rlimit_as_of_a_real_process():
    import resource

    shown = subprocess.check_output(
        [sys.executable, "-c", SHOW_LIMIT],
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30)),
    )
    assert shown.split(None, 1) == [str(2**30), "RLIMIT_AS\n"]


@pytest.fixture
def real_group():
    """A control group below this process's own, made for the test and removed after it."""
    own = control_group.groups(Path("/"))
    made = None
    for group in own:
        directory = group.directory / f"membudget-test-{os.getpid()}"
        knob = "memory.limit_in_bytes" if group.version == 1 else "memory.max"
        try:
            directory.mkdir()
            if (directory / knob).exists():
                made = (directory, knob)
                break
            directory.rmdir()
        except OSError:
            with contextlib.suppress(OSError):
                directory.rmdir()
    if made is None:
        pytest.skip("no control group with a memory controller can be created here")
    yield made
    made[0].rmdir()


@pytest.mark.kernel
@pytest.mark.processes
def test_the_limit_of_a_real_control_group(real_group):
    directory, knob = real_group
    (directory / knob).write_text(str(512 * 2**20))
    join = f"import os; open({str(directory / 'cgroup.procs')!r}, 'w').write(str(os.getpid()))\n"
    shown = subprocess.check_output([sys.executable, "-c", join + SHOW_LIMIT], text=True)
    size, source = shown.split(None, 1)
    assert int(size) == 512 * 2**20
    assert directory.name in source
    assert source.strip().endswith(knob)
