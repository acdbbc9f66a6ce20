import os

import pytest

from pytest_membudget import MemorySemaphore
from pytest_membudget.measurement.system.machine import memory_reading
from pytest_membudget.runtime.admission.host_ledger import HostLedger
from pytest_membudget.runtime.admission.host_scope import HostScope
from pytest_membudget.runtime.admission.host_share import (
    OTHERS_HOLD_S,
    SHARE_POLL_S,
    SURPLUS_S,
    GroupShare,
    HostShare,
    SharedBudget,
)

pytestmark = pytest.mark.usefixtures("host_directory")


@pytest.fixture
def clock():
    class Clock:
        now_s = 100.0

        def __call__(self):
            return self.now_s

    return Clock()


@pytest.fixture
def make(clock):
    def make(budget_bytes=1000):
        scope = HostScope(
            budget_bytes, name="default", reserve=0.2, max_overtakes=4, reading=memory_reading, label="share"
        )
        return HostShare(scope, clock)

    return make


@pytest.fixture
def other():
    return MemorySemaphore(1000, scope="host")


def test_it_grows_to_what_all_tasks_that_could_start_need(make, other):
    share = make()
    assert share.adjust(0, 100, 400) == 400
    assert other.statistics().reserved_bytes == 400
    assert share.adjust(400, 100, 800) == 800


def test_where_other_programs_hold_the_rest_it_takes_what_is_free(make, other):
    share = make()
    with other.reserve(700):
        assert share.adjust(0, 100, 400) == 300


def test_it_waits_in_the_queue_for_its_next_task_and_no_longer_than_that(make, other, clock):
    share = make()
    lease = other.reserve(950)
    assert share.adjust(0, 100, 400) == 0
    assert other.statistics().waiting == 1
    lease.release()
    clock.now_s += SHARE_POLL_S
    assert share.adjust(0, 100, 400) == 400
    assert other.statistics().waiting == 0


def test_it_gives_back_what_its_tasks_do_not_need_when_another_program_waits(make, other, clock):
    share = make()
    assert share.adjust(0, 100, 1000) == 1000
    waiting = other._submit(600, exclusive=False)
    clock.now_s += SHARE_POLL_S
    assert share.adjust(500, 0, 1000) == 500
    assert other.statistics().waiting == 1
    assert share.adjust(400, 0, 1000) == 400
    assert other.statistics().reserved_bytes == 1000
    other._scope.release(waiting)
    clock.now_s += SHARE_POLL_S
    assert share.adjust(400, 100, 1000) == 1000


def test_its_next_task_may_overtake_another_programs_request_a_stated_number_of_times(make, other, clock):
    share = make()
    share.adjust(0, 100, 1000)
    waiting = other._submit(900, exclusive=False)
    for _ in range(4):  # each time a task ends, and the next one goes first
        clock.now_s += SHARE_POLL_S
        assert share.adjust(500, 100, 1000) == 600
    clock.now_s += SHARE_POLL_S
    assert share.adjust(500, 100, 1000) == 500
    other._scope.release(waiting)


def test_what_it_does_not_need_it_keeps_for_a_moment_only(make, other, clock):
    share = make()
    share.adjust(0, 100, 400)
    assert share.adjust(0, 0, 100) == 400
    clock.now_s += SURPLUS_S
    assert share.adjust(0, 0, 100) == 100
    share.adjust(0, 0, 0)
    clock.now_s += SURPLUS_S
    assert share.adjust(0, 0, 0) == 0
    assert other.statistics().leases == 0


def test_tasks_that_hold_more_than_the_lease_make_other_programs_wait(make, other, clock):
    share = make()
    share.adjust(0, 100, 100)
    assert share.adjust(950, 0, 950) == 950
    share.adjust(1200, 0, 1200)
    assert other.statistics().paused
    clock.now_s += SURPLUS_S
    share.adjust(500, 0, 500)
    assert other.can_allocate(500)


def test_it_never_asks_for_more_than_the_smallest_budget(make, other):
    MemorySemaphore(300, scope="host")
    small = MemorySemaphore(300, scope="host")
    share = make()
    assert share.ceiling_bytes == 300
    assert share.adjust(0, 5000, 9000) == 300
    small.close()


def test_without_a_change_it_leaves_the_file_alone(make, clock, monkeypatch):
    share = make()
    share.adjust(0, 100, 400)
    monkeypatch.setattr(share._scope, "ledger", None)
    assert share.adjust(0, 100, 400) == 400
    clock.now_s += SHARE_POLL_S
    with pytest.raises(TypeError):
        share.adjust(0, 100, 400)


def test_closed_it_holds_nothing_and_its_limit_counts_no_longer(make, other):
    share = make(500)
    share.adjust(0, 100, 400)
    share.close()
    assert other.can_allocate(1000)


def test_where_another_program_waits_an_overrun_does_not_make_the_lease_larger(make, other, clock):
    share = make()
    share.adjust(0, 100, 400)
    other.reserve(600)
    waiting = other._submit(900, exclusive=False)
    clock.now_s += SHARE_POLL_S
    assert share.adjust(500, 0, 500) == 400
    assert other.statistics().reserved_bytes == 1100
    other._scope.release(waiting)


def test_without_a_lease_it_waits_behind_another_program(make, other, clock):
    share = make()
    lease = other.reserve(600)
    waiting = other._submit(900, exclusive=False)
    assert share.adjust(0, 500, 500) == 0
    assert other.statistics().waiting == 2
    lease.release()
    clock.now_s += SHARE_POLL_S
    assert share.adjust(0, 500, 500) == 0
    assert share.is_contended is False, "the other program was granted what it waited for"
    other._scope.release(waiting)
    clock.now_s += SHARE_POLL_S
    assert share.adjust(0, 500, 500) == 500


def test_where_nothing_is_asked_and_nothing_held_no_file_is_touched(make, monkeypatch):
    share = make()
    monkeypatch.setattr(share._scope, "ledger", None)
    assert share.adjust(0, 0, 0) == 0


def test_all_is_given_back_at_once_where_nothing_runs(make, other):
    share = make()
    share.adjust(300, 0, 300)
    waiting = other._submit(900, exclusive=False)
    share.give_back()
    assert share.held_bytes == 0
    assert other.statistics().waiting == 0, "what waits elsewhere starts"
    assert other.statistics().reserved_bytes == waiting.bytes


def test_a_request_that_waits_is_taken_back_as_well(make, other):
    share = make()
    with other.reserve(950):
        assert share.adjust(0, 100, 400) == 0
        share.give_back()
        assert other.statistics().waiting == 0


def test_the_budget_of_an_executor_is_what_it_holds_of_the_hosts(make, other):
    share = make()
    budget = SharedBudget(share)
    share.adjust(0, 100, 400)
    assert budget.now_bytes(lambda: 10_000) == 400
    assert budget.largest_bytes == budget.ceiling_bytes == 1000
    assert not budget.is_fixed


def test_a_lease_grows_by_whole_units_of_what_is_free(make, other):
    scope = make()._scope
    claim = scope.new_claim(100, exclusive=False)
    with scope.ledger() as ledger:
        ledger.submit(claim)
        ledger.grant()
    claim.granted, scope.claims[claim.id] = True, claim
    with other.reserve(350):
        assert scope.grow(claim, 200, 8) == 2
        assert claim.bytes == 500
        assert scope.grow(claim, 20, 1) == 1
    assert other.statistics().reserved_bytes == claim.bytes == 520


# In a control group, among programs that did not ask for it ---------------------------------------------------------------


@pytest.fixture
def in_group(clock):
    scope = HostScope(
        1000, name="default", reserve=0.2, max_overtakes=4, reading=memory_reading, label="share"
    )
    return GroupShare(scope, clock)


def test_in_a_group_it_waits_for_what_others_hold_as_long_as_something_runs(in_group, other, clock):
    with other.reserve(600):
        assert in_group.adjust(0, 300, 300, nothing_runs=True) == 300
        for _ in range(2):
            clock.now_s += OTHERS_HOLD_S
            assert in_group.adjust(300, 300, 600) == 300


def test_in_a_group_one_task_runs_after_a_while_whatever_others_hold(in_group, other, clock):
    with other.reserve(900):
        assert in_group.adjust(0, 300, 600, nothing_runs=True) == 0
        clock.now_s += OTHERS_HOLD_S - 1
        assert in_group.adjust(0, 300, 600, nothing_runs=True) == 0
        clock.now_s += 1
        assert in_group.adjust(0, 300, 600, nothing_runs=True) == 300


def test_in_a_group_one_task_runs_at_once_where_no_other_program_holds_anything(in_group, monkeypatch):
    monkeypatch.setattr(HostLedger, "budget_bytes", lambda _: 0)  # programs that take no part use all of it
    assert in_group.adjust(0, 300, 600, nothing_runs=True) == 300


def test_in_a_group_a_state_that_cannot_be_read_stops_nothing(in_group, clock, caplog):
    in_group._scope._file.path.write_text("{")
    assert in_group.adjust(0, 300, 600) == 600
    assert in_group.adjust(300, 300, 2000) == in_group.held_bytes == 1000
    in_group.give_back()
    in_group.close()
    assert caplog.text.count("cannot be read") == 1


def test_a_program_that_takes_part_is_known_by_its_process():
    scope = HostScope(1000, name="default", reserve=0.2, max_overtakes=4, reading=memory_reading)
    assert scope.is_within([1, os.getpid()])
    assert not scope.is_within([2**22 + 1])
