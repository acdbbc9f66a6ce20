import pytest

from pytest_membudget import OversizeError
from pytest_membudget.runtime.admission.ledger import Ledger


def started(ledger):
    return [ticket.token for ticket in ledger.grant()]


def test_grants_in_order_of_arrival_while_it_fits():
    ledger = Ledger(100, max_overtakes=0)
    for token in "abc":
        ledger.submit(40, token=token)
    assert started(ledger) == ["a", "b"]
    assert (ledger.reserved_bytes, ledger.free_bytes) == (80, 20)


def test_a_released_lease_makes_room_and_a_second_release_does_nothing():
    ledger = Ledger(100, max_overtakes=0)
    first = ledger.submit(100)
    ledger.submit(100, token="next")
    ledger.grant()
    ledger.release(first)
    ledger.release(first)
    assert started(ledger) == ["next"]
    assert ledger.reserved_bytes == 100


def test_small_ones_pass_a_head_that_does_not_fit_a_stated_number_of_times_then_it_drains():
    ledger = Ledger(100, max_overtakes=2)
    running = ledger.submit(60)
    ledger.submit(90, token="head")
    small = [ledger.submit(10, token=token) for token in "abc"]
    assert started(ledger) == [None, "a", "b"]
    assert ledger.statistics().overtaken == 2
    ledger.release(small[0])
    assert started(ledger) == [], "c would fit, but the line drains for the head"
    ledger.release(running)
    assert started(ledger) == ["head"]


def test_a_request_beyond_the_budget_is_refused_with_both_numbers():
    with pytest.raises(OversizeError, match=r"2\.00 GiB .* budget of 1\.00 GiB"):
        Ledger(2**30, max_overtakes=4).submit(2**31)


def test_an_exclusive_request_of_any_size_runs_alone():
    ledger = Ledger(100, max_overtakes=8)
    before = ledger.submit(10, token="before")
    alone = ledger.submit(500, exclusive=True, token="alone")
    ledger.submit(10, token="after")
    assert started(ledger) == ["before", "after"]
    assert ledger.statistics().overtaken == 1
    ledger.release(before)
    assert started(ledger) == []
    assert alone.state == "waiting"


def test_nothing_starts_beside_an_exclusive_lease():
    ledger = Ledger(100, max_overtakes=8)
    alone = ledger.submit(500, exclusive=True)
    ledger.submit(1, token="later")
    ledger.grant()
    assert ledger.statistics().exclusive
    assert not ledger.would_grant(1)
    assert started(ledger) == []
    ledger.release(alone)
    assert started(ledger) == ["later"]


def test_an_overrun_raises_its_own_charge_and_pauses_admission_until_it_fits_again():
    ledger = Ledger(100, max_overtakes=0)
    grown = ledger.submit(50)
    ledger.grant()
    ledger.submit(0, token="nothing at all")
    ledger.charge(grown, 120)
    assert started(ledger) == []
    assert ledger.statistics().paused
    assert ledger.statistics().reserved_bytes == 120
    ledger.charge(grown, 30)
    assert ledger.reserved_bytes == 50, "never below what was granted"
    assert started(ledger) == ["nothing at all"]


def test_a_late_report_of_a_finished_lease_charges_nothing():
    ledger = Ledger(100, max_overtakes=0)
    ticket = ledger.submit(50)
    ledger.grant()
    ledger.release(ticket)
    ledger.charge(ticket, 80)
    assert ledger.reserved_bytes == 0


def test_a_cancelled_waiter_lets_the_others_by():
    ledger = Ledger(100, max_overtakes=0)
    ledger.submit(60)
    ledger.grant()
    head = ledger.submit(90)
    ledger.submit(40, token="behind")
    assert started(ledger) == []
    ledger.cancel(head)
    assert started(ledger) == ["behind"]


def test_cancelling_what_was_granted_meanwhile_gives_its_bytes_back():
    ledger = Ledger(100, max_overtakes=0)
    ticket = ledger.submit(60)
    ledger.grant()
    ledger.cancel(ticket)
    assert ledger.reserved_bytes == 0


def test_a_waiter_that_a_shrunken_budget_cannot_hold_keeps_its_place_and_stops_nobody():
    ledger = Ledger(100, max_overtakes=0, ceiling_bytes=100)
    ledger.submit(90, token="large")
    ledger.submit(40, token="small")
    ledger.set_budget(50)
    assert started(ledger) == ["small"]
    ledger.set_budget(200)
    assert started(ledger) == ["large"]


def test_the_ceiling_admits_to_the_line_what_a_moving_budget_may_hold_later():
    ledger = Ledger(50, max_overtakes=0, ceiling_bytes=100)
    ledger.submit(100, token="later")
    with pytest.raises(OversizeError):
        ledger.submit(101)
    assert started(ledger) == []
    ledger.set_budget(100)
    assert started(ledger) == ["later"]


def test_whether_a_newcomer_would_start_at_once_counts_those_who_wait():
    ledger = Ledger(100, max_overtakes=1)
    ledger.submit(60)
    ledger.submit(90)
    ledger.grant()
    assert ledger.would_grant(40)
    assert not ledger.would_grant(41)
    ledger.submit(10)
    ledger.grant()
    assert not ledger.would_grant(10), "the head has been overtaken once, and that was all it allows"


def test_no_more_start_at_once_than_were_asked_for():
    ledger = Ledger(100, max_overtakes=0)
    for token in "abc":
        ledger.submit(10, token=token)
    assert [ticket.token for ticket in ledger.grant(at_most=2)] == ["a", "b"]
    assert [ticket.token for ticket in ledger.grant(at_most=2)] == ["c"]


def test_statistics_count_all_who_wait_and_call_only_an_overrun_a_pause():
    ledger = Ledger(100, max_overtakes=0)
    ledger.submit(100)
    ledger.grant()
    ledger.submit(10)
    ledger.submit(500, exclusive=True)
    full = ledger.statistics()
    assert (full.leases, full.waiting, full.free_bytes, full.paused) == (1, 2, 0, False)
    alone = Ledger(100, max_overtakes=0)
    alone.submit(500, exclusive=True)
    alone.grant()
    assert (alone.statistics().exclusive, alone.statistics().paused) == (True, False)


@pytest.mark.parametrize("size", [-1, 1.5, True, "1 MB"])
def test_bytes_are_whole_numbers(size):
    with pytest.raises(ValueError, match="whole bytes"):
        Ledger(100, max_overtakes=0).submit(size)


@pytest.mark.parametrize("resident_bytes", [-1, 1.5, True, "1"])
def test_what_a_lease_holds_is_whole_bytes_of_zero_or_more(resident_bytes):
    ledger = Ledger(100, max_overtakes=0)
    ticket = ledger.submit(10)
    ledger.grant()
    with pytest.raises(ValueError, match="resident_bytes is"):
        ledger.charge(ticket, resident_bytes)
    assert ledger.reserved_bytes == 10


def test_a_request_is_charged_nothing_while_it_waits_and_nothing_once_it_is_done():
    ledger = Ledger(100, max_overtakes=0)
    ticket = ledger.submit(10)
    assert ticket.charge_bytes == 0
    ledger.grant()
    assert ticket.charge_bytes == 10
    ledger.release(ticket)
    assert ticket.charge_bytes == 0


def test_what_was_not_granted_is_neither_given_back_nor_charged():
    ledger = Ledger(100, max_overtakes=0)
    ticket = ledger.submit(40)
    with pytest.raises(ValueError, match="<Ticket 0: 40 B, waiting> has not been granted; cancel it instead"):
        ledger.release(ticket)
    with pytest.raises(ValueError, match="it holds nothing to charge"):
        ledger.charge(ticket, 50)
    assert started(ledger) == [None]
    assert ledger.reserved_bytes == 40


def test_a_number_of_overtakes_below_none_is_refused():
    with pytest.raises(ValueError, match="max_overtakes is -1; give 0"):
        Ledger(100, max_overtakes=-1)
