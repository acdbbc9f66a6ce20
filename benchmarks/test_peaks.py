"""How near to the truth is a peak? Known cases, measured by this package and by its peers' means side by side.

psutil: resident sizes of the process and its children, summed every 10 ms by a thread, as most scripts do. pytest-monitor:
the call of memory_profiler that it makes, which samples this process every 100 ms. memray: the peak of heap that
pytest-memray reports.
"""

import os
import tempfile
import threading
from pathlib import Path

import psutil
import pytest
from known_peaks import CHILDRENS_SPIKES, MIB, ONE_PROCESS, SHARING, TREES

from pytest_membudget import measure, measuring
from pytest_membudget.measurement.process.high_water import resident_and_shared_bytes
from pytest_membudget.measurement.tree.sampler import sampler

REPEATS = 3


@pytest.fixture(scope="module", autouse=True)
def warm_helper():
    with measuring():
        assert sampler() is not None


def by_psutil(case):
    """What a sampling thread sees."""
    done, most, process = threading.Event(), [0], psutil.Process()

    def resident():
        total = process.memory_info().rss
        for child in process.children(recursive=True):
            try:
                total += child.memory_info().rss
            except psutil.Error:
                continue
        return total

    def sample():
        while not done.wait(0.01):
            most[0] = max(most[0], resident())

    start = resident()
    thread = threading.Thread(target=sample)
    thread.start()
    case()
    done.set()
    thread.join()
    return max(0, most[0] - start)


def by_memray(case):
    """What an allocation tracker calls the peak. A child of its own, since forks under a tracker are another story."""
    import memray

    with tempfile.TemporaryDirectory() as folder:
        capture = Path(folder, "capture.bin")
        with memray.Tracker(capture):
            case()
        with memray.FileReader(os.fspath(capture)) as reader:
            return reader.metadata.peak_memory


def by_monitor(case):
    """What pytest-monitor would write down, above the start."""
    from memory_profiler import memory_usage

    start = psutil.Process().memory_info().rss
    most = memory_usage((case, ()), max_iterations=1, max_usage=True)
    return max(0, most * MIB - start)


def worst_of(case):
    """Of several runs, the one whose proven figure is farthest from its truth."""
    runs = [measure(case) for _ in range(REPEATS)]
    return max(runs, key=lambda m: abs(m.peak_bytes - m.value))


def show(figure, case, m, target):
    peers = ", ".join(
        f"{name} {by(case) / MIB:.0f}"
        for name, by in (("psutil", by_psutil), ("pytest-monitor", by_monitor), ("memray", by_memray))
    )
    found = f"{m.peak_bytes / MIB:.1f} to {m.peak_upper_bytes / MIB:.1f}"
    figure(case.__name__.replace("_", " "), f"{found} MiB", f"truth {m.value / MIB:.1f}, {peers} ({target})")


@pytest.mark.parametrize("case", ONE_PROCESS, ids=lambda case: case.__name__)
def test_one_process(case, figure):
    m = worst_of(case)
    show(figure, case, m, "within max(1 MiB, 1%)")
    assert abs(m.peak_bytes - m.value) <= max(MIB, m.value // 100)
    assert m.exact


@pytest.mark.parametrize("case", TREES, ids=lambda case: case.__name__)
def test_trees(case, figure):
    m = worst_of(case)
    show(figure, case, m, "within max(2 MiB, 3%), upper at most 1.5 times")
    assert abs(m.peak_bytes - m.value) <= max(2 * MIB, m.value * 3 // 100)
    assert m.value <= m.peak_upper_bytes <= 1.5 * m.value


@pytest.mark.parametrize("case", CHILDRENS_SPIKES, ids=lambda case: case.__name__)
def test_a_childs_spike_of_an_instant(case, figure):
    """By the child's own mark: what this process maps of files may be in it, and is not proven beside it."""
    m = worst_of(case)
    _, files = resident_and_shared_bytes()
    show(figure, case, m, f"less {files / MIB:.0f} of files at most, upper at most 1.5 times")
    assert m.value - files - 2 * MIB <= m.peak_bytes <= m.value * 1.03
    assert m.value <= m.peak_upper_bytes <= 1.5 * m.value


@pytest.mark.parametrize("case", SHARING, ids=lambda case: case.__name__)
def test_shared_and_forked_memory(case, figure):
    m = worst_of(case)
    show(figure, case, m, "within max(2 MiB, 3%), upper at most 1.5 times")
    assert abs(m.peak_bytes - m.value) <= max(2 * MIB, m.value * 3 // 100)
    assert m.value <= m.peak_upper_bytes <= 1.5 * m.value
