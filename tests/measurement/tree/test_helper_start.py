"""Starting the helper process, with real programs in the interpreter's place."""

import gc
import itertools
import os
import resource
import sys

import pytest

from pytest_membudget import originals
from pytest_membudget.measurement.process.children import children_of
from pytest_membudget.measurement.process.proc import open_files
from pytest_membudget.measurement.tree.sampler import SamplerLostError, TreeSampler

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="the helper watches Linux processes"),
    pytest.mark.kernel,
    pytest.mark.processes,
]


@pytest.fixture(autouse=True)
def _others_close_theirs():
    """Files of tests before, which are closed as garbage, count as none that was left."""
    gc.collect()


@pytest.mark.parametrize(
    ("program", "reason"), [("/bin/false", "ended by itself"), ("/nowhere/python", "could not be started")]
)
def test_a_helper_that_cannot_start_leaves_no_process_and_no_descriptor(monkeypatch, program, reason):
    files, children = open_files(), children_of(os.getpid())
    monkeypatch.setattr(originals.sys, "executable", program)
    with pytest.raises(SamplerLostError, match=reason):
        TreeSampler()
    assert open_files().items() <= files.items()
    assert children_of(os.getpid()) == children


@pytest.mark.parametrize("free", range(9))
def test_a_helper_that_gets_too_few_descriptors_is_lost_and_leaves_none(free):
    files = open_files()
    numbers = (number for number in itertools.count() if number not in files)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (next(itertools.islice(numbers, free, None)), limits[1]))
    try:
        with pytest.raises(SamplerLostError, match=r"could not be started .*Too many open files"):
            TreeSampler()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert open_files().items() <= files.items()


@pytest.mark.parametrize("is_waited_for", [True, False])
def test_a_helper_that_was_not_waited_for_leaves_nothing_either(is_waited_for):
    files, children = open_files(), children_of(os.getpid())
    helper = TreeSampler(waits=False)
    assert helper.is_starting
    if is_waited_for:
        helper.wait_until_ready()
        assert helper.pid
        assert not helper.is_starting
        assert children_of(os.getpid()) == children
    helper.close()
    assert open_files().items() <= files.items()
    assert children_of(os.getpid()) == children
