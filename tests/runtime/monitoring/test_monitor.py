"""The monitor on scripted readings and a scripted clock."""

import gc
import logging
import mmap

import pytest

from pytest_membudget import MemoryMonitor
from pytest_membudget.errors import UsageError
from pytest_membudget.measurement.process.heap import Heap
from pytest_membudget.runtime.monitoring.cleanup import ProcessFigures

MB = 1_000_000
GB = 1000 * MB


class ScriptedMemory:
    """Holds what the test says; a collection frees `garbage_bytes`."""

    def __init__(self, rss_bytes=1 * GB, real_limit_bytes=32 * GB):
        self.rss_bytes = rss_bytes
        self.real_limit_bytes = real_limit_bytes
        self.garbage_bytes = 0
        self.spike_bytes = 0
        self.kept_bytes = 0
        self.fragments_bytes = 0

    def resident_bytes(self):
        return self.rss_bytes

    def figures(self):
        return ProcessFigures(self.rss_bytes, self.rss_bytes // 2, 2 * self.rss_bytes, 10 * GB)

    def limit_bytes(self):
        return self.real_limit_bytes

    def open_mark(self):
        return object()

    def mark_peak_bytes(self, mark):
        return self.rss_bytes + self.spike_bytes

    close_mark = mark_peak_bytes

    def heap(self):
        return Heap(500 * MB, 0, 500 * MB + self.kept_bytes)

    def trim(self):
        self.kept_bytes = min(self.kept_bytes, self.fragments_bytes)

    def collect_and_trim(self):
        self.rss_bytes -= self.garbage_bytes
        self.garbage_bytes = 0


class Clock:
    now_s = 0.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def memory():
    return ScriptedMemory()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def make(memory, clock):
    made = []

    def _make(limit="8 GB", **options):
        made.append(MemoryMonitor(limit, memory=memory, clock=clock, **options))
        return made[-1]

    yield _make
    for monitor in made:
        monitor.close()


def test_a_snapshot_has_all_figures(make):
    snapshot = make().get_memory_snapshot()
    assert (snapshot.rss_bytes, snapshot.uss_bytes, snapshot.vms_bytes) == (1 * GB, GB // 2, 2 * GB)
    assert (snapshot.available_bytes, snapshot.limit_bytes, snapshot.limit_share) == (10 * GB, 8 * GB, 0.125)


def test_nothing_runs_below_the_threshold(make, memory):
    memory.rss_bytes = int(0.79 * 8 * GB)
    result = make().check_memory_and_cleanup()
    assert not result
    assert result.freed_bytes == 0


def test_past_80_percent_of_the_limit_a_check_cleans_up_and_says_what_it_freed(make, memory):
    monitor = make()
    memory.rss_bytes, memory.garbage_bytes = int(0.8 * 8 * GB), 2 * GB
    result = monitor.check_memory_and_cleanup()
    assert result
    assert result.freed_bytes == 2 * GB
    ran, before_bytes, after_bytes = result
    assert (ran, before_bytes - after_bytes) == (True, 2 * GB)
    assert result[0] is True
    assert not result.emergency


def test_force_cleans_up_in_any_case(make, memory):
    memory.garbage_bytes = 10 * MB
    result = make().check_memory_and_cleanup(force=True)
    assert (result.ran, result.freed_bytes, result.reason) == (True, 10 * MB, "asked for")


def test_past_120_percent_of_a_soft_limit_it_is_an_emergency(make, memory):
    monitor, called = make(), []
    monitor.register_cleanup_callback(lambda: called.append("always"))
    monitor.register_cleanup_callback(lambda: called.append("emergency"), emergency_only=True)
    memory.rss_bytes = int(1.19 * 8 * GB)
    assert not monitor.check_memory_and_cleanup().emergency
    memory.rss_bytes = int(1.2 * 8 * GB)
    assert monitor.check_memory_and_cleanup().emergency
    assert called == ["always", "always", "emergency"]


def test_an_emergency_never_waits_beyond_the_real_limit(make, memory):
    memory.real_limit_bytes = 8 * GB
    monitor = make()
    memory.rss_bytes = int(0.96 * 8 * GB)
    assert monitor.check_memory_and_cleanup().emergency


def test_without_a_limit_the_real_one_counts(make, memory):
    assert make(None).limit_bytes == memory.real_limit_bytes


def test_a_callback_that_raises_is_reported_and_stops_no_other(make, caplog):
    monitor, called = make(), []

    def broken():
        raise RuntimeError("no connection")

    monitor.register_cleanup_callback(broken)
    monitor.register_cleanup_callback(lambda: called.append(1))
    result = monitor.check_memory_and_cleanup(force=True)
    assert called == [1]
    assert len(result.failures) == 1
    assert "RuntimeError: no connection" in result.failures[0]
    assert "broken failed" in caplog.text
    assert monitor.report().cleanups[-1].failures == result.failures


def test_a_callback_whose_error_has_no_text_stops_no_other_either(make):
    class SpeechlessError(Exception):
        def __str__(self):
            raise ValueError("no text")

    def broken():
        raise SpeechlessError

    monitor, called = make(), []
    monitor.register_cleanup_callback(broken)
    monitor.register_cleanup_callback(lambda: called.append(1))
    (failure,) = monitor.check_memory_and_cleanup(force=True).failures
    assert called == [1]
    assert "SpeechlessError, whose text raises ValueError" in failure


def test_every_tenth_progress_update_cleans_up(make):
    monitor = make()
    assert [bool(monitor.progress(done)) for done in range(1, 21)] == ([False] * 9 + [True]) * 2
    assert monitor.report().progress == 20


def test_every_fifth_chunk_cleans_up(make):
    monitor = make()
    for _ in range(10):
        with monitor.chunk(1000):
            pass
    assert [event.reason for event in monitor.report().cleanups] == ["every 5 chunks"] * 2


def test_regular_cleanups_can_be_turned_off(make):
    monitor = make(cleanup_every=0, cleanup_every_chunks=0)
    for _ in range(40):
        monitor.progress()
        monitor.chunk_done(10, peak_bytes=5)
    assert monitor.report().cleanups == ()


def test_progress_does_not_clean_up_again_until_memory_grew(make, memory):
    monitor = make(cleanup_every=0)
    memory.rss_bytes = 7 * GB
    assert [bool(monitor.progress()) for _ in range(3)] == [True, False, False]
    memory.rss_bytes = 7 * GB + 200 * MB
    assert monitor.progress()


def test_the_growth_rate_is_per_minute_with_its_interval(make, memory, clock):
    monitor = make()
    for step in range(1, 31):
        clock.now_s = 2.0 * step
        memory.rss_bytes = 1 * GB + step * MB + (step % 3) * 100_000
        monitor.get_memory_snapshot()
    report = monitor.report()
    assert report.growth_mb_per_min == pytest.approx(30, rel=0.05)
    assert report.growth_low_bytes_per_min <= 30 * MB <= report.growth_high_bytes_per_min
    assert report.caveats == ()


def test_few_snapshots_give_no_growth_rate(make):
    report = make().report()
    assert report.growth_bytes_per_min == 0
    assert "growth rate" in report.caveats[0]


def test_snapshots_are_bounded(make, clock):
    monitor = make(snapshots=5)
    for step in range(20):
        clock.now_s = step
        monitor.get_memory_snapshot()
    assert [snapshot.at_s for snapshot in monitor.report().snapshots] == [15, 16, 17, 18, 19]


def test_progress_takes_snapshots_no_more_often_than_told(make, clock):
    monitor = make(snapshot_every_s=1.0)
    for step in range(1, 41):
        clock.now_s = step / 10
        monitor.progress()
    assert len(monitor.report().snapshots) == 1 + 4


def test_a_peak_between_two_looks_is_in_the_report(make, memory):
    monitor = make()
    memory.spike_bytes = 3 * GB
    assert monitor.report().peak_bytes == 4 * GB


def test_full_collections_are_noted_until_it_is_closed(make):
    before = len(gc.callbacks)
    monitor = make()
    gc.collect()
    gc.collect(0)
    monitor.close()
    gc.collect()
    assert [event.generation for event in monitor.report().collections] == [2]
    assert len(gc.callbacks) == before


def test_a_monitor_that_is_dropped_stops_listening(memory):
    before = len(gc.callbacks)
    MemoryMonitor("8 GB", memory=memory)
    gc.collect()
    assert len(gc.callbacks) == before


def test_an_alert_is_said_once_logged_and_given_to_the_callback(make, memory, caplog):
    heard = []
    monitor = make(on_alert=heard.append)
    memory.rss_bytes = 7 * GB
    with caplog.at_level(logging.WARNING):
        monitor.check_memory_and_cleanup()
        monitor.check_memory_and_cleanup()
    assert len(heard) == 1
    assert "87.5% of the limit" in heard[0]
    assert caplog.messages == heard
    assert monitor.report().alerts == tuple(heard)
    memory.rss_bytes = 1 * GB
    monitor.check_memory_and_cleanup()
    memory.rss_bytes = 7 * GB
    monitor.check_memory_and_cleanup()
    assert len(heard) == 2


def test_an_alert_callback_that_raises_ends_nothing(make, memory):
    def broken(sentence):
        raise ValueError(sentence)

    monitor = make(on_alert=broken)
    memory.rss_bytes = 7 * GB
    assert monitor.check_memory_and_cleanup()


def test_growth_that_reaches_the_limit_soon_is_an_alert(make, memory, clock):
    heard = []
    monitor = make("2 GB", on_alert=heard.append, cleanup_every=0)
    for step in range(1, 12):
        clock.now_s = step
        memory.rss_bytes = 1 * GB + step * 10 * MB
        monitor.progress()
    assert len(heard) == 1
    assert "a minute" in heard[0]


def test_a_chunk_is_measured_with_its_peak_and_what_it_left(make, memory, clock):
    monitor = make()
    memory.spike_bytes = 300 * MB
    with monitor.chunk(50_000):
        memory.rss_bytes += 20 * MB
        clock.now_s = 3.0
    (chunk,) = monitor.report().chunks
    assert (chunk.rows, chunk.peak_bytes, chunk.retained_bytes) == (50_000, 320 * MB, 20 * MB)
    assert (chunk.duration_s, chunk.bytes_per_row) == (3.0, 6400.0)


def test_a_chunk_that_raises_is_not_counted(make):
    monitor = make()
    with pytest.raises(KeyError), monitor.chunk(10):
        raise KeyError
    assert monitor.report().chunks == ()


def test_recommended_rows_fill_70_percent_of_the_limit(make, memory):
    monitor = make()
    monitor.chunk_done(50_000, peak_bytes=400 * MB)
    assert monitor.recommend_chunk_rows() == 570_000  # (0.7 * 8 GB - 1 GB) / 8,000 bytes a row = 575,000


@pytest.mark.parametrize(("share", "rows"), [(0.9, 500), (0.6, 1000), (0.2, 1250)])
def test_chunk_size_adapts_to_pressure(make, memory, share, rows):
    monitor = make()
    memory.rss_bytes = int(share * 8 * GB)
    assert monitor.next_chunk_rows(1000) == rows


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("limit", "8"),
        ("limit", 0),
        ("cleanup_threshold", 0),
        ("emergency_threshold", -1),
        ("cleanup_every", -1),
        ("cleanup_every_chunks", 1.5),
        ("snapshots", 0),
    ],
)
def test_a_nonsense_option_is_named(memory, option, value):
    with pytest.raises(UsageError, match=option):
        MemoryMonitor(memory=memory, **{option: value})


def test_a_callback_must_be_callable(make):
    with pytest.raises(UsageError, match="callback"):
        make().register_cleanup_callback("clear")


@pytest.mark.kernel
def test_on_the_real_kernel_a_chunk_shows_what_it_touched():
    with MemoryMonitor() as monitor:
        # Mapped, not from malloc: what other tests left of malloc's heap could hold the block, and keep it.
        with monitor.chunk(1), mmap.mmap(-1, 64 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as block:
            block[:: mmap.PAGESIZE] = b"x" * (len(block) // mmap.PAGESIZE)
        report = monitor.report()
    assert 60 << 20 <= report.chunks[0].peak_bytes <= 80 << 20
    assert report.chunks[0].retained_bytes < 20 << 20
    assert report.peak_bytes >= report.snapshots[0].rss_bytes


def test_a_chunk_begins_with_free_memory_given_back_and_notes_what_the_heap_kept(make, memory):
    monitor = make()
    memory.kept_bytes, memory.fragments_bytes = 300 * MB, 40 * MB
    with monitor.chunk(1000):
        memory.spike_bytes = 100 * MB
    (chunk,) = monitor.report().chunks
    assert (chunk.peak_bytes, chunk.kept_bytes) == (100 * MB, 40 * MB)


@pytest.mark.kernel
def test_on_the_real_kernel_chunks_that_reuse_memory_show_what_they_take():
    def work():
        return [
            bytes(range(200)) * 500 for _ in range(300)
        ]  # 30 MB in blocks that malloc keeps once they are freed

    with MemoryMonitor("8 GB", cleanup_every_chunks=0) as monitor:
        for _ in range(4):
            with monitor.chunk(300):
                work()
        peaks = [chunk.peak_bytes for chunk in monitor.report().chunks]
    assert min(peaks) > 20 * MB, peaks
    assert monitor.recommend_chunk_rows() < 300 * 8000 * MB / (20 * MB)
