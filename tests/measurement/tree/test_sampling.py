"""When a dear reading is worth its cost: from a scripted clock and scripted readings."""

from types import SimpleNamespace

import pytest

from pytest_membudget.measurement.tree.helper import sampling
from pytest_membudget.measurement.tree.helper.records import Interval, Proportional, Reading, Span
from pytest_membudget.measurement.tree.helper.sampling import Account, PssSampling, sample_proportional

MIB = 1024 * 1024
STILL = [Reading(1, 10 * MIB, faults=5), Reading(2, 20 * MIB, faults=7)]


class Clock:
    """Both clocks of the helper: what passes, and what it costs."""

    def __init__(self):
        self.now_s = self.spent_s = 0.0

    def wait(self, seconds):
        self.now_s += seconds

    def work(self, seconds):
        self.now_s += seconds
        self.spent_s += seconds


@pytest.fixture
def clock(monkeypatch):
    found = Clock()
    times = SimpleNamespace(monotonic=lambda: found.now_s, thread_time=lambda: found.spent_s)
    monkeypatch.setattr(sampling, "time", times)
    return found


def pay(account, clock, cost_s):
    with account.charged():
        clock.work(cost_s)


def interval(*, moving=0, held=(0, 0), file=(0, 0)):
    low, high = held
    spans = Span(low, high, high), Span(*file, file[1])
    return Interval(*spans, file_added=0, alone=False, missed=0, moving=moving, leaving={})


def test_a_sample_is_followed_by_a_rest_in_proportion_to_its_cost(clock):
    account = Account(share=0.5, most_s=10.0, rest=25)
    assert account.is_open()
    pay(account, clock, 0.1)
    clock.wait(2.4)
    assert not account.is_open()
    clock.wait(0.2)
    assert account.is_open()


def test_after_a_cheap_sample_there_is_a_rest_too(clock):
    account = Account(share=0.5, most_s=10.0, rest=1)
    pay(account, clock, 0.001)
    clock.wait(sampling.PAUSE_S - 0.002)
    assert not account.is_open()
    clock.wait(0.003)
    assert account.is_open()


def test_what_was_spent_beyond_the_account_has_to_be_saved_again(clock):
    account = Account(share=0.1, most_s=1.0, rest=0)
    pay(account, clock, 2.0)  # 1.0 was saved, and 0.2 comes in meanwhile
    clock.wait(7.0)
    assert not account.is_open()
    clock.wait(2.0)
    assert account.is_open()


def test_an_account_saves_no_more_than_its_most(clock):
    account = Account(share=0.1, most_s=1.0, rest=0)
    clock.wait(1000.0)
    assert account.is_open()
    pay(account, clock, 1.2)  # with what comes in while it is spent, this is all that there was
    clock.wait(0.1)
    assert not account.is_open()


def test_a_tree_that_stands_still_is_sampled_whatever_was_spent(clock):
    samples = PssSampling()
    with samples.charged(STILL):
        clock.work(10.0)
    blurred = interval(held=(10 * MIB, 30 * MIB))
    assert samples.worthwhile(blurred, STILL, could_rise=True)
    assert not samples.worthwhile(blurred, STILL, could_rise=False)
    assert not samples.worthwhile(
        blurred, STILL[:1], could_rise=True
    )  # alone, it shares with no other process
    apart = interval(held=(10 * MIB, 10 * MIB + sampling.GAP_BYTES))
    assert not samples.worthwhile(apart, STILL, could_rise=True)
    moving = interval(held=(10 * MIB, 30 * MIB), moving=sampling.GAP_BYTES + 1)
    assert not samples.worthwhile(moving, STILL, could_rise=True)


@pytest.mark.parametrize(
    ("moving", "forking", "again"), [(0, False, False), (1, False, True), (0, True, True)]
)
def test_a_second_sample_of_what_stood_still_shows_nothing_new(moving, forking, again):
    samples = PssSampling()
    samples.taken(Proportional({}, forking=forking), interval(moving=moving), STILL)
    with samples.charged(STILL) as is_new:
        assert is_new == again
    samples.forget()
    with samples.charged(STILL) as is_new:
        assert is_new


def test_files_are_counted_once_no_process_maps_more(clock):
    samples = PssSampling()
    first, more = [Reading(1, 0, file=MIB)], [Reading(1, 0, file=2 * MIB)]

    def counted(readings, **options):
        clock.wait(1.0)
        with samples.counting(readings, **options) as may:
            return may

    assert not counted(first)  # they may be mapping still
    assert counted(first)
    assert not counted(first)  # known
    assert not counted(more)
    assert counted(more)
    assert counted([Reading(1, 0, file=3 * MIB)], force=True)


class _Process:
    """A process whose `smaps_rollup` is this, in MiB."""

    is_clearing = False

    def __init__(self, **fields):
        self._fields = {name.encode(): size * MIB for name, size in fields.items()}

    def proportional(self):
        return self._fields


def test_a_sample_says_of_each_process_what_is_counted_too_often_and_what_is_its_own():
    forks = [
        Reading(1, 100 * MIB, fork_group="f"),
        Reading(2, 100 * MIB, fork_group="f"),
        Reading(3, 50 * MIB),
    ]
    fork = _Process(Pss_Anon=60, Anonymous=100, Pss_Shmem=3, Pss_File=4, Private_Clean=5, Private_Dirty=15)
    found = sample_proportional(forks, {1: fork, 2: fork})  # the third shares nothing, and is not read
    assert found.correction == {1: -40 * MIB, 2: -40 * MIB}
    assert (found.shmem[1], found.file[1], found.private[1]) == (3 * MIB, 4 * MIB, 20 * MIB)
    assert not found.forking
    assert sample_proportional(forks, {1: fork}) is None


def test_a_fork_without_a_page_of_its_own_is_still_being_made():
    forks = [Reading(1, 100 * MIB, fork_group="f"), Reading(2, 100 * MIB, fork_group="f")]
    young = _Process(Pss_Anon=50, Anonymous=100)
    older = _Process(Pss_Anon=50, Anonymous=100, Private_Dirty=1)
    assert sample_proportional(forks, {1: older, 2: young}).forking
    assert not sample_proportional(forks, {1: older, 2: older}).forking


def test_a_process_that_maps_shared_memory_or_many_files_is_read_though_it_has_no_forks():
    alone = _Process(Pss_Anon=1, Anonymous=1, Pss_Shmem=2, Pss_File=3)
    for reading, is_read in (
        (Reading(1, MIB, shmem=1), True),
        (Reading(1, MIB, file=sampling.FILE_GAP_BYTES), True),
        (Reading(1, MIB, file=sampling.FILE_GAP_BYTES - 1), False),
    ):
        assert bool(sample_proportional([reading], {1: alone}).correction) == is_read
