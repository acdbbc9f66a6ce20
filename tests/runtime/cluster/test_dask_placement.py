"""Which task goes to which worker of a cluster: slots alone, no cluster."""

import random
import sys
from concurrent.futures import Future

import pytest

from pytest_membudget import ExecutorPolicy, OversizeError
from pytest_membudget.runtime.executor.charges import Charge
from pytest_membudget.runtime.executor.cluster_placement import STRANDED_S, ClusterPlacement, calls_together
from pytest_membudget.runtime.executor.local_memory import LocalMemory
from pytest_membudget.runtime.executor.local_placement import LocalPlacement
from pytest_membudget.runtime.executor.scheduler import Scheduler
from pytest_membudget.runtime.executor.state import (
    Backend,
    Finish,
    Forget,
    Send,
    Slot,
    Start,
    Submission,
    Task,
)
from pytest_membudget.runtime.executor.worker_pool import WorkerPool
from pytest_membudget.runtime.workers.protocol import Died, Figures, Returned

MB = 1_000_000


class Fixed(Charge):
    def __init__(self, size_bytes):
        self.size_bytes = size_bytes

    def first_bytes(self):
        return self.size_bytes

    def retry_bytes(self, failed_bytes):
        return 2 * failed_bytes

    def observe(self, peak_bytes, duration_s, peak_upper_bytes=None):
        pass


def a_task(size_bytes):
    return Task(Submission(abs, (-1,), {}, Future()), Fixed(size_bytes))


class Cluster:
    """A scheduler on workers of the given capacities; one call at a time unless `mean_s` says that they are short."""

    def __init__(self, *capacities, hosts="abcdefgh", mean_s=1.0, most=None, **policy):
        self.placement = ClusterPlacement(most=most)
        here = LocalPlacement(LocalMemory(1000, max_overtakes=8))
        backends = [
            Backend("dask", self.placement, own_memory=True),
            Backend("process", here, own_memory=True),
        ]
        self.scheduler = Scheduler(backends, ExecutorPolicy(**policy), max_workers=2)
        self.scheduler.pool.throughput.mean_s = mean_s
        self.effects = []
        for capacity, host in zip(capacities, hosts, strict=False):
            self.join(capacity, host)

    @property
    def slots(self):
        return self.scheduler.pool.slots

    def join(self, capacity, host="z", *, is_renewable=False):
        slot = Slot(self.scheduler.levels.now, host=host, is_renewable=is_renewable)
        self.scheduler.pool.workers_changed(self.scheduler.levels.now, [slot], {slot: capacity})
        return slot

    def decided(self):
        effects = self.scheduler.decide()
        self.scheduler.validate()
        self.effects += effects
        return effects

    def submit(self, *sizes):
        tasks = [a_task(size) for size in sizes]
        for task in tasks:
            self.scheduler.submitted(task)
        self.decided()
        return tasks

    def returned(self, slot, **figures):
        self.scheduler.replied(slot, slot.running[0].sequence, Returned(1, Figures(1.0, **figures)))
        self.decided()

    def lose(self, slot, *, attempted=False):
        for task in list(slot.running):
            self.scheduler.replied(slot, task.sequence, Died("it was lost", attempted=attempted))
        if slot in self.slots:
            self.slots.remove(slot)
        self.scheduler.pool.workers_changed(self.scheduler.levels.now, [], {})
        return self.decided()

    def sizes_at(self, slot):
        return [task.charged_bytes for task in slot.running]


def test_a_worker_takes_first_what_no_smaller_one_could_hold():
    cluster = Cluster(100, 300)
    small, large = cluster.slots
    cluster.submit(1, 299)
    cluster.submit(10, 50, 200, 20, 250)
    cluster.returned(large)
    assert cluster.sizes_at(large) == [200]
    cluster.returned(small)
    assert cluster.sizes_at(small) == [10]
    cluster.returned(large)
    assert cluster.sizes_at(large) == [250]
    cluster.returned(large)
    assert cluster.sizes_at(large) == [50]


def test_no_worker_is_given_more_than_fits():
    chance = random.Random(3)
    cluster = Cluster(100, 200, 400, mean_s=0.01)
    tasks = cluster.submit(*(chance.randint(1, 400) for _ in range(300)))
    while cluster.scheduler.open_tasks:
        slot = chance.choice([slot for slot in cluster.slots if slot.running])
        assert all(size <= slot.capacity_bytes for size in cluster.sizes_at(slot))
        cluster.returned(slot)
    assert {task.cause for task in tasks} == {"ok"}


def test_among_those_of_one_home_the_first_comes_first():
    cluster = Cluster(100, 300)
    _, large = cluster.slots
    cluster.submit(1, 299)
    first, second = cluster.submit(150, 300)
    cluster.submit(*[10] * 50)
    cluster.returned(large)
    assert list(large.running) == [first]
    cluster.returned(large)
    assert list(large.running) == [second]


def test_a_worker_that_is_idle_takes_what_a_smaller_one_could_hold():
    cluster = Cluster(100, 300)
    cluster.submit(10, 20)
    assert all(len(slot.running) == 1 for slot in cluster.slots)


def test_larger_than_every_worker_is_refused_with_both_numbers():
    cluster = Cluster(100_000_000, 300_000_000)
    cluster.submit(2_000_000_000)
    (finish,) = [each for each in cluster.effects if isinstance(each, Finish)]
    assert isinstance(finish.error, OversizeError)
    assert "1.86 GiB, more than the 286 MiB" in str(finish.error)


def test_no_task_is_called_too_large_before_there_was_a_worker():
    cluster = Cluster()
    (task,) = cluster.submit(200)
    assert task.state == "queued"
    slot = cluster.join(300)
    cluster.decided()
    assert list(slot.running) == [task]


def test_one_that_must_be_alone_waits_for_its_whole_machine_and_keeps_it():
    cluster = Cluster(100, 300, 200, hosts="aab", oversize="alone")
    beside, large, elsewhere = cluster.slots
    cluster.submit(50, 60, 200)
    assert [cluster.sizes_at(slot) for slot in cluster.slots] == [[50], [60], [200]]
    (big,) = cluster.submit(900)
    cluster.submit(10, 20)
    cluster.returned(large)
    assert not large.running
    cluster.returned(elsewhere)
    assert cluster.sizes_at(elsewhere) == [10]
    cluster.returned(beside)
    assert list(large.running) == [big]
    assert not beside.running
    cluster.returned(large)
    assert cluster.sizes_at(beside) == [20]


def test_what_was_lost_before_travels_alone_and_first():
    cluster = Cluster(100, mean_s=0.01)
    (only,) = cluster.slots
    tasks = cluster.submit(*range(1, 60))
    together = list(only.running)
    assert len(together) > 4
    assert together == tasks[: len(together)]
    joined = cluster.join(100)
    cluster.lose(only)
    assert list(joined.running) == tasks[:1]


def test_a_task_that_was_attempted_and_lost_is_repeated_with_more():
    cluster = Cluster(100)
    (task,) = cluster.submit(30)
    joined = cluster.join(100)
    cluster.lose(cluster.slots[0], attempted=True)
    assert list(joined.running) == [task]
    assert (task.charged_bytes, task.attempts) == (60, 1)
    assert cluster.scheduler.pool.concurrency.now == 2  # its workers share no budget


def test_tasks_wait_for_their_worker_to_come_back_but_not_for_ever():
    cluster = Cluster(100, 300)
    cluster.submit(299)
    (big,) = cluster.submit(250)
    small, large = cluster.slots
    cluster.returned(large)
    cluster.lose(large)
    submission = big.submission
    for now_s in (0.0, STRANDED_S / 2):
        cluster.scheduler.time_passed(now_s, {})
        cluster.decided()
        assert big.state == "queued"
    back = cluster.join(300)
    cluster.decided()
    assert list(back.running) == [big]
    cluster.lose(back)
    for now_s in (STRANDED_S, 2 * STRANDED_S):
        cluster.scheduler.time_passed(now_s, {})
        cluster.decided()
    (finish,) = [
        each for each in cluster.effects if isinstance(each, Finish) and each.submission is submission
    ]
    assert "left, and did not come back" in str(finish.error)
    assert big.cause == "oversize"
    assert small in cluster.slots


def test_a_worker_that_joins_is_used_by_those_that_wait():
    cluster = Cluster(500)
    first, second = cluster.submit(400, 450)
    late = cluster.join(500)
    cluster.decided()
    assert list(cluster.slots[0].running) == [first]
    assert list(late.running) == [second]


def test_cancelled_tasks_are_forgotten():
    cluster = Cluster(100)
    (only,) = cluster.slots
    _, second, third = cluster.submit(10, 20, 30)
    cluster.scheduler.cancelled(second)
    cluster.scheduler.cancelled(second)
    cluster.decided()
    assert cluster.scheduler.queue.waiting() == [third]
    cluster.returned(only)
    assert list(only.running) == [third]


def test_no_more_tasks_run_at_once_than_were_asked_for():
    cluster = Cluster(100, 100, 100, most=2)
    cluster.submit(10, 10, 10)
    assert sum(bool(slot.running) for slot in cluster.slots) == 2


def test_a_worker_that_retains_too_much_begins_again_before_the_task():
    cluster = Cluster()
    slot = cluster.join(300 * MB, is_renewable=True)
    cluster.decided()
    cluster.submit(10 * MB)
    cluster.returned(slot, kept_bytes=200 * MB)
    (task,) = cluster.submit(250 * MB)
    assert Forget(slot, renew=True) in cluster.effects
    assert task.state == "queued"
    fresh = cluster.join(300 * MB)
    cluster.decided()
    assert list(fresh.running) == [task]


def test_without_a_cluster_the_next_level_goes_on_in_order():
    cluster = Cluster(100)
    tasks = cluster.submit(*[10] * 5)
    cluster.scheduler.cluster_lost(cluster.scheduler.levels.now, "the connection was lost")
    effects = cluster.decided()
    assert len([each for each in effects if isinstance(each, Start)]) == 1
    assert [task for each in effects if isinstance(each, Send) for task, _ in each.calls] == tasks[1:2]
    assert cluster.scheduler.queue.waiting() == tasks[2:]


@pytest.mark.parametrize(
    ("workers", "mean_s", "room", "together"),
    [
        (3, 0.005, sys.maxsize, 20),  # 0.1 s of them
        (3, 0.0001, sys.maxsize, 32),
        (3, 2.0, sys.maxsize, 1),
        (3, 0.005, 7, 7),
        (1000, 0.5, sys.maxsize, 6),  # 3 s: the cluster's scheduler has 3 ms for each of 1,000 messages
        (1000, 0.005, sys.maxsize, 32),
        (1000, 10.0, sys.maxsize, 1),
    ],
)
def test_so_many_calls_travel_together_that_the_clusters_scheduler_keeps_up(workers, mean_s, room, together):
    backend = Backend("dask", ClusterPlacement(), own_memory=True)
    pool = WorkerPool([backend], ExecutorPolicy(), [], max_workers=2, max_in_flight=room)
    pool.throughput.mean_s = mean_s
    pool.slots.extend(Slot(backend) for _ in range(workers))
    assert calls_together(pool) == together
