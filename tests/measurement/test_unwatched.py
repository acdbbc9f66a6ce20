"""Where children cannot be watched the peak is an interval or "at least", never exact."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys

import psutil
import pytest
from tree_programs import MIB, Holder

from pytest_membudget import measuring, originals
from pytest_membudget.measurement.system.machine import memory_limit
from pytest_membudget.measurement.tree import fallback_sampler, sampler

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.processes,
    pytest.mark.skipif(sys.platform != "linux", reason="the helper watches Linux processes"),
]
SIZE = 60 * MIB
CHILD = f"b = bytearray({SIZE}); b[::4096] = b'x' * len(b[::4096])"
MEASURED = f"""
import subprocess, sys
from pytest_membudget import measuring
with measuring() as probe:
    subprocess.run([sys.executable, "-c", {CHILD!r} + "; import time; time.sleep(0.2)"])
m = probe.measurement
print(m.peak_bytes, m.peak_upper_bytes, m.exact, *(caveat.kind for caveat in m.caveat_records))
"""


def kinds(probe):
    return [caveat.kind for caveat in probe.measurement.caveat_records]


@pytest.fixture
def blind(monkeypatch):
    """Neither a helper, nor a sampler that sees other processes."""
    monkeypatch.setattr(sampler, "sampler", lambda: None)
    monkeypatch.setattr(sampler, "why_not", lambda: "there is no helper here")
    monkeypatch.setattr(fallback_sampler.InsideSampler, "stop", lambda _: None)


def test_a_child_that_nobody_saw_is_in_the_upper_figure(blind):
    with measuring() as probe:
        subprocess.run([sys.executable, "-c", CHILD], check=True)
    m = probe.measurement
    assert SIZE < m.peak_upper_bytes < 2 * SIZE
    assert (m.source, m.exact) == ("sampled", False)
    assert kinds(probe) == ["no-helper", "children-not-seen"]


def test_of_a_child_that_lives_on_only_the_memory_limit_is_known(blind):
    with measuring() as probe:
        holder = Holder(MIB)
    holder.release()
    assert probe.measurement.peak_upper_bytes == memory_limit().bytes
    assert kinds(probe) == ["no-helper", "children-not-readable"]


def test_without_children_the_kernels_own_mark_is_exact(blind):
    with measuring() as probe:
        block = b"x" * SIZE
    assert probe.measurement.exact
    assert len(block) == SIZE


def test_a_helper_that_is_killed_leaves_an_interval():
    with measuring() as probe:
        os.kill(sampler.sampler().pid, signal.SIGKILL)
        subprocess.run([sys.executable, "-c", CHILD], check=True)
    assert not probe.measurement.exact
    assert probe.measurement.peak_upper_bytes > SIZE
    assert {"helper-lost", "children-not-seen"} <= set(kinds(probe))


def test_a_helper_that_was_stopped_is_killed_when_it_is_given_up(monkeypatch):
    tree = sampler.TreeSampler()
    monkeypatch.setattr(sampler, "ANSWER_S", 0.2)
    os.kill(tree.pid, signal.SIGSTOP)
    with pytest.raises(sampler.SamplerLostError, match="not answered"):
        tree.begin()
    tree.forget()
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(tree.pid).wait(20)


def test_a_helper_starts_where_it_may_have_no_session_of_its_own(monkeypatch):
    popen = subprocess.Popen

    def forbid(words, *, start_new_session=False, **options):
        if start_new_session:
            raise PermissionError(1, "Operation not permitted")
        return popen(words, **options)

    monkeypatch.setattr(originals.subprocess, "Popen", forbid)
    tree = sampler.TreeSampler()
    assert tree.members >= 1
    tree.close()


def test_with_standard_input_closed_the_helper_starts_all_the_same():
    code = "import os; os.close(0); os.close(1)\n" + MEASURED.replace(
        "print(", "print(file=sys.stderr, *("
    ).replace("caveat_records))", "caveat_records)))")
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stderr
    assert int(found.split()[0]) > SIZE


@pytest.mark.skipif(
    not shutil.which("unshare") or os.geteuid() != 0, reason="only root may mount a /proc of its own"
)
def test_where_proc_shows_nothing_but_processes_the_tree_is_seen():
    mounted = 'mount -t proc -o subset=pid proc /proc && exec "$@"'
    words = ["unshare", "-m", "sh", "-c", mounted, "sh", sys.executable, "-c", MEASURED]
    low, high, exact, *_ = subprocess.check_output(words, text=True).split()
    assert SIZE < int(low) <= int(high) < 2 * SIZE
    assert exact == "False"
