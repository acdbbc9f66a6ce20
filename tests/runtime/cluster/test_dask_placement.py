"""Which task goes to which worker of a cluster: scripted workers, no cluster."""

import random
from types import SimpleNamespace

import pytest

from pytest_membudget import ExecutorPolicy, OversizeError
from pytest_membudget.runtime.executor.cluster_dispatch import ClusterDispatch
from pytest_membudget.runtime.executor.placement import PATIENCE_S, Placement
from pytest_membudget.runtime.executor.task import Charge, Task
from pytest_membudget.runtime.workers.slot import Post


class Lent:
    def __init__(self, capacity_bytes, host):
        self.capacity_bytes = capacity_bytes
        self.host = host


class Crew:
    def __init__(self, *workers):
        self.posts = [Post(lent, None, lent) for lent in workers]


class Fixed(Charge):
    def __init__(self, size_bytes):
        self.size_bytes = size_bytes

    def first_bytes(self):
        return self.size_bytes


def task(size_bytes, **changes):
    made = Task(print, (), {}, Fixed(size_bytes))
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def placement(*capacities, policy=None, clock=lambda: 0.0, hosts="abcdefgh"):
    crew = Crew(*map(Lent, capacities, hosts))
    placed = Placement(crew, policy or ExecutorPolicy(), clock)
    placed.look_around()
    return placed, crew.posts


def line_up(placed, *sizes):
    tasks = [task(size) for size in sizes]
    for each in tasks:
        placed.line_up(each)
    return tasks


def sizes_for(placed, post, at_most=1):
    return [each.charged_bytes for each in placed.take_for(post, at_most)]


def test_a_worker_takes_first_what_no_smaller_one_could_hold():
    placed, (small, large) = placement(100, 300)
    line_up(placed, 10, 50, 200, 20, 250)
    assert sizes_for(placed, large) == [200]
    assert sizes_for(placed, small) == [10]
    assert sizes_for(placed, large, 3) == [250, 50, 20]
    assert placed.waiting == 0


def test_nobody_is_given_more_than_fits():
    chance = random.Random(3)
    placed, posts = placement(100, 200, 400)
    line_up(placed, *(chance.randint(1, 400) for _ in range(300)))
    while placed.waiting:
        post = chance.choice(posts)
        assert all(size <= post.lent.capacity_bytes for size in sizes_for(placed, post, chance.randint(1, 5)))


def test_among_those_of_one_home_the_first_comes_first():
    placed, (_, large) = placement(100, 300)
    first, second = line_up(placed, 150, 300)
    for _ in range(50):
        line_up(placed, 10)
    assert placed.take_for(large, 1) == [first]
    assert placed.take_for(large, 1) == [second]


def test_larger_than_every_worker_is_refused_with_both_numbers():
    placed, _ = placement(100_000_000, 300_000_000)
    with pytest.raises(OversizeError, match=r"1\.86 GiB, more than the 286 MiB"):
        line_up(placed, 2_000_000_000)


def test_one_that_must_be_alone_waits_for_its_whole_machine_and_keeps_it():
    alone = ExecutorPolicy(oversize="alone")
    placed, (beside, large, elsewhere) = placement(100, 300, 200, policy=alone, hosts="aab")
    (running,) = line_up(placed, 50)
    beside.in_flight.extend(placed.take_for(beside, 1))
    (big,) = line_up(placed, 900)
    line_up(placed, 10, 20)
    assert sizes_for(placed, large) == []
    assert sizes_for(placed, elsewhere) == [10]
    beside.in_flight.remove(running)
    assert sizes_for(placed, beside) == []
    large.in_flight.extend(placed.take_for(large, 1))
    assert list(large.in_flight) == [big]
    assert sizes_for(placed, beside) == []
    large.in_flight.clear()
    assert sizes_for(placed, beside) == [20]


def test_who_was_lost_before_travels_alone_and_first():
    placed, (only,) = placement(100)
    line_up(placed, 1, 2, 3)
    placed.line_up(task(4, lost=1))
    assert sizes_for(placed, only, 4) == [4]
    assert sizes_for(placed, only, 4) == [1, 2, 3]


def test_tasks_wait_for_their_worker_to_come_back_but_not_for_ever():
    now = [0.0]
    placed, _ = placement(100, 300, clock=lambda: now[0])
    (big,) = line_up(placed, 250)
    crew_posts = placed._crew.posts
    gone = crew_posts.pop()
    placed.look_around()
    assert placed.stranded() == []
    now[0] = PATIENCE_S / 2
    assert placed.stranded() == []
    crew_posts.append(gone)
    placed.look_around()
    assert placed.stranded() == []
    crew_posts.remove(gone)
    placed.look_around()
    assert placed.stranded() == []
    now[0] += PATIENCE_S
    ((stranded, error),) = placed.stranded()
    assert stranded is big
    assert "left" in str(error)
    assert placed.waiting == 0


def test_a_worker_that_joins_is_used_by_those_who_wait():
    placed, _ = placement(100)
    placed._largest_seen_bytes = 500
    (big,) = line_up(placed, 400)
    lent = Lent(500, "z")
    late = Post(lent, None, lent)
    placed._crew.posts.append(late)
    placed.look_around()
    assert placed.take_for(late, 1) == [big]


def test_withdrawn_tasks_are_forgotten():
    placed, (only,) = placement(100)
    first, second = line_up(placed, 10, 20)
    placed.withdraw(first)
    placed.withdraw(first)
    assert placed.tasks() == [second]
    assert sizes_for(placed, only, 5) == [20]


@pytest.mark.parametrize(
    ("workers", "mean_s", "room", "together"),
    [
        (3, 0.005, None, 20),  # 0.1 s of them
        (3, 0.0001, None, 32),
        (3, 2.0, None, 1),
        (3, 0.005, 7, 7),
        (1000, 0.5, None, 6),  # 3 s: the scheduler has 3 ms for each of 1,000 messages
        (1000, 0.005, None, 32),
        (1000, 10.0, None, 1),
    ],
)
def test_so_many_calls_travel_together_that_the_scheduler_keeps_up(workers, mean_s, room, together):
    handover = SimpleNamespace(
        crew=SimpleNamespace(posts=[None] * workers),
        pace=SimpleNamespace(mean_s=mean_s),
        room_in_flight=lambda: room,
    )
    line = SimpleNamespace(placement=None)
    assert ClusterDispatch(line, handover, None)._together() == together
