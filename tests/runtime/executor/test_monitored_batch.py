"""A monitor that is told of each input of a batch."""

import executor_jobs as jobs
import pytest

from pytest_membudget import FallbackExecutor, MemoryMonitor


@pytest.mark.kernel
@pytest.mark.processes
def test_a_monitor_hears_of_each_input_and_cleans_up_in_time():
    cleaned = []
    with FallbackExecutor(1, budget="1 GB") as executor, MemoryMonitor(cleanup_every_chunks=5) as monitor:
        monitor.register_cleanup_callback(lambda: cleaned.append(True))
        batch = executor.run(jobs.fill, [20_000_000] * 12, monitor=monitor)
    seen = monitor.report()
    assert len(seen.chunks) == len(batch.outcomes) == 12
    assert all(19_000_000 < chunk.peak_bytes < 30_000_000 for chunk in seen.chunks)
    assert len(cleaned) == 2
