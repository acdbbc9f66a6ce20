import random

import pytest

from pytest_membudget.errors import MeasurementError
from pytest_membudget.gate.revisions.compare import MOST_RUNS_OF_A_COMMIT, bisect

MIB = 2**20


def measuring(levels, *, sigma=0.001, seed=1):
    """`measure` of commits "0", "1", …: their levels in MiB, None where the test fails."""
    chance = random.Random(seed)

    def measure(commit):
        level = levels[int(commit)]
        return None if level is None else round(level * MIB * chance.gauss(1, sigma))

    return measure


def found(levels, **noise):
    return bisect([str(number) for number in range(len(levels))], measuring(levels, **noise))


@pytest.mark.parametrize("first_bad", [1, 2, 37, 63, 64])
def test_a_quiet_test_takes_one_run_a_commit(first_bad):
    result = found([40] * first_bad + [50] * (65 - first_bad))
    assert result.commit == str(first_bad)
    assert result.suspects == (str(first_bad),)
    assert result.caveats == ()
    assert result.runs <= 4 + 6
    assert result.before_bytes == pytest.approx(40 * MIB, rel=0.01)
    assert result.after_bytes == pytest.approx(50 * MIB, rel=0.01)


def test_a_noisy_test_takes_more_runs_and_is_right():
    right = [found([40] * 20 + [46] * 12, sigma=0.04, seed=seed) for seed in range(30)]
    assert sum(result.commit == "20" for result in right) >= 28
    assert max(result.runs for result in right) > 15


def test_commits_at_which_it_fails_are_left_out_and_named_where_they_matter():
    result = found([40, 40, None, None, 50, 50, None, 50])
    assert (result.commit, result.suspects) == ("4", ("2", "3", "4"))
    assert "does not pass at 2 commits" in result.caveats[0]
    assert found([40, None, 40, 50]).suspects == ("3",)


def test_ends_that_do_not_differ_are_said_to_and_take_no_search():
    with pytest.raises(MeasurementError, match=f"as far as {MOST_RUNS_OF_A_COMMIT} runs of each can tell"):
        found([40] * 20)
    with pytest.raises(MeasurementError, match="uses no more"):
        found([50, 45, 40])


@pytest.mark.parametrize(("levels", "name"), [([None, 50], "good"), ([40, None], "bad")])
def test_an_end_that_fails_is_named(levels, name):
    with pytest.raises(MeasurementError, match=f"did not pass at the {name} revision"):
        found(levels)


def test_a_rise_in_several_commits_says_so():
    assert "several commits" in found([40, 45, 50], sigma=0.02).caveats[-1]


def test_the_scatter_of_both_ends_says_how_many_runs_an_answer_needs():
    scripted = {"0": [40, 44, 40, 44], "1": [50, 54, 50, 54]}
    runs = {commit: iter(levels * 5) for commit, levels in scripted.items()}
    result = bisect(["0", "1"], lambda commit: next(runs[commit]) * MIB)
    # The deviation within either end is 2.3 MiB (of n - 2 degrees of freedom), so that 10 MiB are clear after two runs each only
    # where 2 · 3 · 2.8 / sqrt(runs) is less.
    assert [len(step.peaks_bytes) for step in result.steps] == [3, 3]
