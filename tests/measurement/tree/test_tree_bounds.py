"""The interval for a whole tree holds the truth, whatever its processes do: random schedules of a scripted kernel."""

from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_kernel import Play

ACTIONS = st.tuples(
    st.sampled_from(["allocate", "churn", "free", "write", "fork", "fork", "execute", "end", "reap"]),
    st.integers(0, 5),
    st.integers(1, 40),
)
STEPS = st.lists(
    st.tuples(
        st.booleans(),
        st.lists(ACTIONS, max_size=4),
        st.lists(ACTIONS, max_size=3),
        st.lists(st.integers(0, 9), max_size=3),
    ),
    min_size=2,
    max_size=12,
)


@settings(max_examples=150, deadline=None)
@given(start=st.integers(0, 50), steps=STEPS)
def test_the_truth_is_never_outside_the_interval(start, steps):
    play = Play(start)
    for looks, between, during, meanwhile in steps:
        for action in between:
            play.kernel.act(*action)
        play.round(looks=looks, during=during, meanwhile=meanwhile)
    for parent in list(play.kernel.hidden):
        play.kernel.come_back(parent, 0)
    play.round()
    play.check()


WORK = st.tuples(
    st.sampled_from(["churn", "churn", "write", "allocate", "free", "fork"]),
    st.integers(0, 3),
    st.integers(1, 60),
)


@settings(max_examples=150, deadline=None)
@given(
    start=st.integers(20, 100),
    steps=st.lists(st.tuples(st.booleans(), st.lists(WORK, max_size=2)), min_size=1, max_size=6),
    last=st.booleans(),
)
def test_looks_at_what_is_left_of_a_family_leave_its_peak_above_the_truth(start, steps, last):
    play = Play(start)
    play.kernel.act("fork", 0, 1)
    for looks, actions in [(True, []), *steps]:
        play.round(looks=looks)
        for action in actions:
            play.kernel.act(*action)
    for round_ in range(4):
        if round_ or last:
            for pid in play.kernel.living():
                play.kernel.free(pid, 1000)
        play.round(looks=True)
    for parent in list(play.kernel.hidden):
        play.kernel.come_back(parent, 0)
    play.round()
    play.check()
