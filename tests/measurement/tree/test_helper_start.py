"""Starting the helper process, with real programs in the interpreter's place."""

import itertools
import os
import resource
import sys

import pytest

from pytest_membudget import originals
from pytest_membudget.measurement.process.children import children_of
from pytest_membudget.measurement.tree.sampler import SamplerLostError, TreeSampler

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="the helper watches Linux processes"),
    pytest.mark.kernel,
    pytest.mark.processes,
]


@pytest.mark.parametrize(
    ("program", "reason"), [("/bin/false", "ended by itself"), ("/nowhere/python", "could not be started")]
)
def test_a_helper_that_cannot_start_leaves_no_process_and_no_descriptor(monkeypatch, program, reason):
    descriptors, children = os.listdir("/proc/self/fd"), children_of(os.getpid())
    monkeypatch.setattr(originals.sys, "executable", program)
    with pytest.raises(SamplerLostError, match=reason):
        TreeSampler()
    assert os.listdir("/proc/self/fd") == descriptors
    assert children_of(os.getpid()) == children


@pytest.mark.parametrize("free", range(9))
def test_a_helper_that_gets_too_few_descriptors_is_lost_and_leaves_none(free):
    descriptors = os.listdir("/proc/self/fd")
    numbers = (number for number in itertools.count() if str(number) not in descriptors)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (next(itertools.islice(numbers, free, None)), limits[1]))
    try:
        with pytest.raises(SamplerLostError, match=r"could not be started .*Too many open files"):
            TreeSampler()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert os.listdir("/proc/self/fd") == descriptors


@pytest.mark.parametrize("is_waited_for", [True, False])
def test_a_helper_that_was_not_waited_for_leaves_nothing_either(is_waited_for):
    descriptors, children = os.listdir("/proc/self/fd"), children_of(os.getpid())
    helper = TreeSampler(waits=False)
    assert helper.is_starting
    if is_waited_for:
        helper.wait_until_ready()
        assert helper.pid
        assert not helper.is_starting
        assert children_of(os.getpid()) == children
    helper.close()
    assert os.listdir("/proc/self/fd") == descriptors
    assert children_of(os.getpid()) == children
