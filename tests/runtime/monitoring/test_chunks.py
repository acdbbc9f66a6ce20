"""Order of processing and size of chunks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_membudget import optimize_processing_order, recommend_chunk_rows
from pytest_membudget.errors import UsageError
from pytest_membudget.records.monitor import ChunkRecord

MB = 1_000_000


def test_the_largest_comes_first_and_equals_keep_their_order():
    assert optimize_processing_order(["1 MB", 5 * MB, "3 MB", 5 * MB]) == [1, 3, 2, 0]


def test_no_sizes_have_no_order():
    assert optimize_processing_order([]) == []


def test_a_size_that_is_none_is_named():
    with pytest.raises(UsageError, match=r"sizes\[1\]"):
        optimize_processing_order([1, "2"])


@given(st.lists(st.integers(0, 10**12)))
def test_the_order_names_each_once(sizes):
    assert sorted(optimize_processing_order(sizes)) == list(range(len(sizes)))


def test_rows_are_what_the_budget_holds():
    assert recommend_chunk_rows([(10_000, 80 * MB)], "400 MB") == 50_000


def test_a_part_that_every_chunk_takes_counts_once():
    chunks = [(10_000, 120 * MB), (20_000, 140 * MB), (40_000, 180 * MB)]  # 100 MB and 2,000 bytes a row
    assert recommend_chunk_rows(chunks, "400 MB") == 150_000


def test_workers_share_the_budget():
    assert recommend_chunk_rows([(10_000, 80 * MB)], "400 MB", workers=4) == 12_000


def test_bounds_hold():
    assert recommend_chunk_rows([(10_000, 80 * MB)], "400 MB", most_rows=20_000) == 20_000
    assert recommend_chunk_rows([(10_000, 80 * MB)], "1 MB", least_rows=500) == 500


def test_chunks_that_took_nothing_may_double():
    assert recommend_chunk_rows([(10_000, 0)], "1 GB") == 20_000


def test_chunks_that_used_freed_memory_again_hide_what_a_row_takes():
    seen = [(100_000, 8_283_000), *[(100_000, 0)] * 4, (17_175, 1_258_000)]
    assert recommend_chunk_rows(seen, "300 MB") == 200_000, "twice the largest: run that, and ask again"
    assert recommend_chunk_rows(seen, "8 MB") == 96_000, "of chunks of one size the largest peak counts"


def test_a_heap_that_kept_as_much_as_a_chunk_took_may_hide_its_peak():
    def chunk(kept_bytes):
        return ChunkRecord(
            rows=10_000, peak_bytes=80 * MB, retained_bytes=0, duration_s=1.0, kept_bytes=kept_bytes
        )

    assert recommend_chunk_rows([chunk(40 * MB)], "400 MB") == 50_000
    assert recommend_chunk_rows([chunk(41 * MB)], "400 MB") == 20_000


def test_beyond_what_ran_it_says_that_it_is_extrapolated(caplog):
    rows = recommend_chunk_rows([(10_000, 80 * MB)], "100 MB")
    assert (rows, rows.is_extrapolated) == (12_000, False)
    assert caplog.records == []
    rows = recommend_chunk_rows([(10_000, 80 * MB)], "400 MB")
    assert (rows, rows.largest_run, rows.is_extrapolated) == (50_000, 10_000, True)
    assert "50,000 rows are recommended from chunks of at most 10,000 rows" in caplog.text


def test_without_a_chunk_nothing_can_be_said():
    with pytest.raises(UsageError, match="no chunk"):
        recommend_chunk_rows([], "1 GB")


@given(
    st.lists(st.tuples(st.integers(1, 10**6), st.integers(0, 10**10)), min_size=1, max_size=20),
    st.integers(1, 10**12),
)
def test_a_larger_budget_never_means_fewer_rows(chunks, budget):
    assert recommend_chunk_rows(chunks, budget) <= recommend_chunk_rows(chunks, 2 * budget)
