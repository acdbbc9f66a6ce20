import os
import subprocess
import sys

import pytest

from pytest_membudget.measurement.process import children as room
from pytest_membudget.measurement.process.children import children_of, descendants, tree_resident_bytes
from pytest_membudget.measurement.process.high_water import resident_bytes

FAMILY = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
print(child.pid, flush=True)
input()
"""


@pytest.fixture
def family():
    with subprocess.Popen(
        [sys.executable, "-c", FAMILY], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        yield parent.pid, int(parent.stdout.readline())
        parent.communicate()


@pytest.mark.processes
@pytest.mark.parametrize("by_psutil", [False, True])
def test_children_and_all_below_them_are_found(family, monkeypatch, by_psutil):
    monkeypatch.setattr(room, "_LINUX", not by_psutil)
    parent, grandchild = family
    assert children_of(parent) == [grandchild]
    assert descendants(parent) == [grandchild]
    assert {parent, grandchild} <= set(descendants())
    assert grandchild not in children_of(os.getpid())


@pytest.mark.processes
def test_a_thread_that_ends_meanwhile_hides_no_child_of_another(family, monkeypatch):
    listed = os.listdir
    monkeypatch.setattr(room.os, "listdir", lambda folder: ["4194999", *listed(folder)])
    assert family[0] in children_of(os.getpid())


def test_a_process_that_is_gone_has_none():
    assert children_of(4194999) == descendants(4194999) == []
    assert tree_resident_bytes(4194999) == 0


@pytest.mark.processes
def test_what_a_tree_holds_includes_what_is_below_its_root(family):
    parent, grandchild = family
    least_bytes = resident_bytes(parent) + resident_bytes(grandchild)  # first: they may still grow by a page
    assert tree_resident_bytes(parent) >= least_bytes > 2 * 1024**2
