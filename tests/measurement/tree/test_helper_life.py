"""The helper process: nobody's child, replaced once when it is lost, gone with its master, and what stands in for it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tree_programs import INTERPRETER, MIB, Holder, assert_holds, settled

from pytest_membudget import measuring
from pytest_membudget.measurement.process import high_water
from pytest_membudget.measurement.tree import sampler
from waiting import is_alive, wait_until

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.processes,
    pytest.mark.skipif(sys.platform != "linux", reason="the tree helper reads /proc"),
]


def test_the_helper_is_nobody_the_code_under_test_can_meet():
    code = """
import os
from pytest_membudget import measuring
with measuring():
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        print("nobody")
"""
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "nobody\n"


def helper_pid():
    return sampler.sampler().pid


def test_a_killed_helper_is_replaced_once_and_the_block_says_so(caplog):
    sampler.close_sampler()
    sampler._keeper.lost = 0
    with measuring() as probe:
        first = helper_pid()
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: not is_alive(first))
        holder = Holder(20 * MIB)
        holder.release()
    assert any("was lost" in caveat for caveat in probe.measurement.caveats)
    with measuring() as probe:
        assert helper_pid() != first
        holder = Holder(50 * MIB)
        settled()
        holder.release()
    assert_holds(probe.measurement, 50 * MIB, own=INTERPRETER)
    assert not any("was lost" in caveat for caveat in probe.measurement.caveats)
    assert sum("was lost" in record.message for record in caplog.records) == 1
    sampler._keeper.lost = 0


def test_the_helper_goes_with_its_master_even_by_sigkill():
    code = """
import sys, time
from pytest_membudget.measurement.process import high_water
from pytest_membudget.measurement.tree import sampler
print(sampler.sampler().pid, flush=True)
time.sleep(600)
"""
    master = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    helper = int(master.stdout.readline())
    assert is_alive(helper)
    master.kill()
    master.communicate()
    wait_until(lambda: not is_alive(helper))


def test_descriptors_that_the_code_under_test_closed_are_left_alone(tmp_path):
    sampler.close_sampler()
    sampler._keeper.lost = 0
    with measuring() as probe:
        commands = sampler.sampler()._commands
        os.close(commands)
        stolen = os.dup2(os.open(tmp_path / "mine", os.O_CREAT | os.O_RDWR), commands)
        subprocess.run(["true"], check=True)
    assert stolen == commands
    assert os.fstat(stolen).st_size == 0
    assert any("closed by the code under test" in caveat for caveat in probe.measurement.caveats)
    os.close(stolen)
    sampler._keeper.lost = 0


def memory_files():
    links = [Path("/proc/self/fd", name) for name in os.listdir("/proc/self/fd")]
    # The listing's own descriptor is closed by now.
    return [int(link.name) for link in links if link.exists() and "pytest-membudget" in str(link.readlink())]


def test_the_notes_descriptors_are_left_alone_where_they_mean_others(tmp_path):
    sampler.close_sampler()
    before = {*memory_files()}
    with measuring():
        pass
    ours = {*memory_files()} - before
    assert len(ours) > 1  # a mapping has one of its own
    mine = os.open(tmp_path / "mine", os.O_CREAT | os.O_RDWR)
    for descriptor in ours:
        os.dup2(mine, descriptor)
    sampler.close_sampler()
    for descriptor in ours:
        os.close(descriptor)  # still open
    os.close(mine)


def test_a_closed_helper_leaves_no_memory_file_behind():
    sampler.close_sampler()
    before = len(memory_files())
    with measuring():
        pass
    sampler.close_sampler()
    assert len(memory_files()) == before


def test_a_forked_child_measures_with_a_helper_of_its_own():
    def measured():
        with measuring() as probe:
            holder = Holder(30 * MIB)
            settled()
            holder.release()
        sampler.close_sampler()
        assert probe.measurement.peak_bytes > 28 * MIB

    with measuring():
        child = os.fork()
        if child == 0:
            try:
                measured()
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_without_a_helper_children_are_sampled_from_inside(monkeypatch):
    monkeypatch.setattr(sampler, "sampler", lambda: None)
    monkeypatch.setattr(sampler, "why_not", lambda: "there is no helper here")
    with measuring(interval_s=0.01) as probe:
        holder = Holder(100 * MIB)
        wait_until(lambda: probe._inside.latest_bytes > high_water.resident_bytes() + 98 * MIB)
        holder.release()
    m = probe.measurement
    assert m.peak_bytes == pytest.approx(103 * MIB, abs=6 * MIB)
    assert (m.source, m.interval_s) == ("sampled", 0.01)
    assert m.caveats[0] == "there is no helper here"
