import pytest

from pytest_membudget.stats.learning import AllocationLearner

MB = 1_000_000


def test_a_retry_is_always_more():
    learner = AllocationLearner([(MB, 3 * MB)])
    assert learner.retry(MB, 0) > 0
    assert learner.retry(MB, 50 * MB) > 50 * MB


def test_a_line_is_learned():
    learner = AllocationLearner([(size * MB, 5 * size * MB) for size in range(1, 9)])
    assert learner.expect(10 * MB) == pytest.approx(50 * MB)
    assert learner.allocate(10 * MB) >= 50 * MB
