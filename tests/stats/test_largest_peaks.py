from hypothesis import given
from hypothesis import strategies as st

from pytest_membudget.stats.learning import PeaksNearby, PeakStairs

FIGURES = st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 10**9)), max_size=20)


@given(FIGURES, st.integers(0, 10**9))
def test_the_largest_peak_nearby_counts(tasks, size):
    nearby = PeaksNearby()
    for seen_size, peak in tasks:
        nearby.add(seen_size, peak)
    near = [peak for seen_size, peak in tasks if size / 1.25 <= seen_size <= size * 1.05]
    assert nearby.near(size) >= max(near, default=0)


def test_sizes_far_away_do_not_count_but_the_next_smaller_one_does():
    nearby = PeaksNearby()
    nearby.add(100, 7)
    nearby.add(1000, 50)
    assert [nearby.near(size) for size in (10, 100, 900, 1000, 5000)] == [0, 7, 7, 50, 50]


def test_stairs_only_go_up():
    stairs = PeakStairs()
    for size, peak in ((10, 5), (20, 3), (30, 9), (15, 9)):
        stairs.add(size, peak)
    assert [stairs.up_to(size) for size in (9, 10, 14, 15, 40)] == [0, 5, 5, 9, 9]
