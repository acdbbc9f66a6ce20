"""Recommendations follow from figures, and none is given where all is well."""

import pytest

from pytest_membudget.records.monitor import ChunkRecord, CleanupEvent, MemorySnapshot, MonitorReport
from pytest_membudget.runtime.monitoring.advice import Setting, recommend

MB = 1_000_000
GB = 1000 * MB


def seen(**changed):
    figures = {
        "duration_s": 60.0,
        "peak_bytes": 2 * GB,
        "limit_bytes": 8 * GB,
        "growth_bytes_per_min": 0.0,
        "growth_low_bytes_per_min": -1.0 * MB,
        "growth_high_bytes_per_min": 1.0 * MB,
        "snapshots": (snapshot(900 * MB), snapshot(GB)),
    }
    return MonitorReport(**{**figures, **changed})


def snapshot(rss_bytes):
    return MemorySnapshot(
        at_s=0.0, rss_bytes=rss_bytes, uss_bytes=GB, vms_bytes=GB, available_bytes=GB, limit_bytes=8 * GB
    )


def advice(report, **setting):
    return [recommendation.advice for recommendation in recommend(report, Setting(**setting), 0.8)]


def test_nothing_is_recommended_where_all_is_well():
    assert advice(seen(), workers=8, max_in_flight=16) == []


def test_a_high_peak_asks_for_fewer_workers_and_fewer_in_flight():
    assert advice(seen(peak_bytes=int(11.2 * GB)), workers=8, max_in_flight=16) == [
        "use fewer workers: 4 in place of 8",
        "lower max_in_flight: 8 in place of 16",
    ]


@pytest.mark.parametrize("setting", [{}, {"workers": 1, "max_in_flight": 1}])
def test_nobody_is_asked_to_lower_what_is_unknown_or_one(setting):
    assert advice(seen(peak_bytes=8 * GB), **setting) == []


def test_large_chunks_are_halved_at_least():
    chunk = ChunkRecord(rows=50_000, peak_bytes=6 * GB, retained_bytes=0, duration_s=1.0)
    (text,) = advice(seen(peak_bytes=7 * GB, chunks=(chunk,)))
    assert text == "use smaller batches: 25,000 rows in place of 50,000"


def test_sure_growth_asks_for_a_check_of_one_step():
    (found,) = recommend(
        seen(growth_bytes_per_min=70.0 * MB, growth_low_bytes_per_min=50.0 * MB), Setting(), 0.8
    )
    assert "check_growth" in found.advice
    assert "100.0 min" in found.because  # 7 GB are left


def test_fast_growth_by_a_little_is_a_program_that_starts():
    report = seen(
        growth_bytes_per_min=70.0 * MB,
        growth_low_bytes_per_min=50.0 * MB,
        snapshots=(snapshot(GB), snapshot(GB + 8 * MB)),
    )
    assert advice(report) == []


def test_growth_that_may_be_none_is_not_mentioned():
    assert advice(seen(growth_bytes_per_min=70.0 * MB, growth_low_bytes_per_min=-5.0 * MB)) == []


def test_cleanups_that_free_much_ask_for_a_collection_after_each_batch():
    event = CleanupEvent(at_s=1.0, reason="", emergency=False, before_bytes=2 * GB, after_bytes=int(1.8 * GB))
    (found,) = recommend(seen(cleanups=(event,)), Setting(), 0.8)
    assert "gc.collect()" in found.advice
    assert "10.0% of the peak" in found.because


def test_a_fragmented_heap_asks_for_fresh_workers():
    (found,) = recommend(seen(heap_kept_bytes=400 * MB, heap_used_bytes=300 * MB), Setting(), 0.8)
    assert "max_tasks_per_child" in found.advice
    assert "381 MiB" in found.because
