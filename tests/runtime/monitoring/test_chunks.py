"""Order of processing and size of chunks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_membudget import optimize_processing_order, recommend_chunk_rows
from pytest_membudget.errors import UsageError

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


def test_without_a_chunk_nothing_can_be_said():
    with pytest.raises(UsageError, match="no chunk"):
        recommend_chunk_rows([], "1 GB")


@given(
    st.lists(st.tuples(st.integers(1, 10**6), st.integers(0, 10**10)), min_size=1, max_size=20),
    st.integers(1, 10**12),
)
def test_a_larger_budget_never_means_fewer_rows(chunks, budget):
    assert recommend_chunk_rows(chunks, budget) <= recommend_chunk_rows(chunks, 2 * budget)
