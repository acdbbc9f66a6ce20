from hypothesis import given
from hypothesis import strategies as st

from pytest_membudget.runtime.admission.ledger import FitQueue


class Waiter:
    def __init__(self, size_bytes):
        self.bytes = size_bytes
        self.place = -1


@given(
    st.lists(
        st.one_of(
            st.integers(0, 9).map(lambda size: ("join", size)), st.tuples(st.just("leave"), st.integers(0))
        )
    )
)
def test_finds_whom_a_walk_along_the_line_finds(steps):
    line, plain = FitQueue(), []
    for step, number in steps:
        if step == "join":
            plain.append(Waiter(number))
            line.append(plain[-1])
        elif plain:
            line.remove(plain.pop(number % len(plain)))
        assert line.in_order() == plain
        assert len(line) == len(plain)
        for most in range(-1, 10):
            fitting = [waiter for waiter in plain if waiter.bytes <= most]
            assert line.first(most) is (fitting[0] if fitting else None)
            for place, waiter in enumerate(plain):
                later = [other for other in plain[place + 1 :] if other.bytes <= most]
                assert line.first(most, behind=waiter) is (later[0] if later else None)


def test_an_old_place_is_left_behind_when_the_line_moves_up():
    line = FitQueue()
    for _ in range(1000):
        waiter = Waiter(1)
        line.append(waiter)
        line.remove(waiter)
    assert len(line) == 0
    assert line.first(10) is None


def test_behind_the_last_place_of_a_full_tree_there_is_nobody():
    line, waiters = FitQueue(), [Waiter(1) for _ in range(64)]
    for number, waiter in enumerate(waiters):
        line.append(waiter)
        assert line.first(10, behind=waiter) is None, number
        assert line.first(10) is waiters[0]
    assert line.first(10, behind=waiters[14]) is waiters[15]


def test_those_who_move_up_into_a_new_tree_are_found_at_once():
    line, waiters = FitQueue(), [Waiter(100 - number) for number in range(17)]
    for waiter in waiters:
        line.append(waiter)
    for number, waiter in enumerate(waiters):
        assert line.first(100 - number) is waiter
