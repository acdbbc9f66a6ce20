from hypothesis import given
from hypothesis import strategies as st

from pytest_membudget.gate.history import RawRun, interleaved


def run(text):
    """ "b2@05": run "b2" of revision "b" at "05"; a revision of its own without a number."""
    name, _, created = text.partition("@")
    return RawRun(0, name, name[:1], created, environment="")


def order(mine, theirs):
    return [each.digest for each in interleaved([*map(run, mine.split())], [*map(run, theirs.split())])]


def test_runs_of_one_revision_stand_together():
    assert order("a1 b1 c1", "a2 b2 c2") == ["a1", "a2", "b1", "b2", "c1", "c2"]


def test_between_shared_revisions_time_decides():
    assert order("a1@1 c1@3 x@5", "a2@1 b@2 d@4 x2@5") == ["a1", "a2", "b", "c1", "d", "x", "x2"]


def test_what_is_known_is_not_doubled_and_what_follows_it_stays_behind():
    assert order("a b", "b c") == ["a", "b", "c"]
    assert order("b c", "a b") == ["a", "b", "c"]


@given(st.lists(st.sampled_from("abcdef"), unique=True), st.lists(st.sampled_from("cdefgh"), unique=True))
def test_each_run_is_there_once_and_mine_keep_their_order(mine, theirs):
    merged = order(" ".join(mine), " ".join(theirs))
    assert sorted(merged) == sorted({*mine, *theirs})
    assert [each for each in merged if each in mine] == mine
