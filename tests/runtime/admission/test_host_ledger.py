import pytest

from pytest_membudget import OversizeError
from pytest_membudget.runtime.admission.host_ledger import HostClaim, HostClient, HostLedger, HostState
from pytest_membudget.runtime.admission.host_state_file import Owner

MB = 1_000_000
ANNE, BERT = Owner(1, 10.0), Owner(2, 20.0)


def everybody(owner):
    return True


def never():
    raise AssertionError("nothing measures here")


def client(owner, budget_bytes, **more):
    return HostClient(
        id=f"client {owner.pid}", owner=owner, budget_bytes=budget_bytes, max_overtakes=4, **more
    )


def claim(owner, size_bytes, name="claim", **more):
    return HostClaim(id=name, owner=owner, bytes=size_bytes, **more)


@pytest.fixture
def ledger():
    host = HostLedger(HostState(), alive=everybody, reading=never)
    host.add_client(client(ANNE, 100))
    host.add_client(client(BERT, 150))
    return host


def granted(host):
    host.grant()
    return [claim.id for claim in host.state.claims if claim.granted]


def test_the_smallest_limit_among_the_clients_wins(ledger):
    assert ledger.budget_bytes() == 100
    with pytest.raises(OversizeError):
        ledger.submit(claim(BERT, 120))
    ledger.remove_clients({"client 1"})
    ledger.submit(claim(BERT, 120))
    assert granted(ledger) == ["claim"]


def test_unrelated_programs_share_one_line(ledger):
    ledger.submit(claim(ANNE, 70, "first"))
    ledger.submit(claim(BERT, 70, "second"))
    ledger.submit(claim(ANNE, 30, "third"))
    assert granted(ledger) == ["first", "third"]
    ledger.remove("first")
    assert granted(ledger) == ["second", "third"]


def test_the_dead_give_back_their_leases_their_places_and_their_limit(ledger):
    ledger.submit(claim(ANNE, 90, "anne runs"))
    ledger.submit(claim(ANNE, 90, "anne waits"))
    ledger.submit(claim(BERT, 90, "bert"))
    assert granted(ledger) == ["anne runs"]
    ledger.remove_dead(lambda owner: owner != ANNE)
    assert granted(ledger) == ["bert"]
    assert ledger.budget_bytes() == 150


def test_an_overrun_pauses_everybody(ledger):
    ledger.submit(claim(ANNE, 10, "overrun"))
    ledger.grant()
    ledger.charge("overrun", 130)
    ledger.submit(claim(BERT, 10, "waits"))
    assert granted(ledger) == ["overrun"]
    assert ledger.statistics().paused


def test_overtakes_are_counted_across_programs():
    host = HostLedger(HostState(), alive=everybody, reading=never)
    host.add_client(HostClient(id="one", owner=ANNE, budget_bytes=100, max_overtakes=1))
    host.submit(claim(ANNE, 50, "runs"))
    host.submit(claim(ANNE, 90, "head"))
    host.submit(claim(BERT, 10, "overtakes"))
    host.grant()
    host.submit(claim(BERT, 10, "too late"))
    assert granted(host) == ["runs", "overtakes"]


def test_an_exclusive_claim_runs_alone_on_the_host(ledger):
    ledger.submit(claim(ANNE, 500, "alone", exclusive=True))
    ledger.submit(claim(BERT, 1, "other"))
    assert granted(ledger) == ["alone"]


def test_a_measured_budget_counts_what_others_use_and_its_own_leases_once(memory):
    host = HostLedger(HostState(), alive=everybody, reading=memory.reading)
    host.add_client(client(ANNE, 13_107 * MB, reserve=0.2))
    assert host.budget_bytes() == 8_192 * MB - 3_276_800_000
    host.submit(claim(ANNE, 4_000 * MB))
    host.grant()
    memory.available_bytes -= 4_000 * MB
    assert host.statistics().free_bytes == 4_915_200_000 - 4_000 * MB
    memory.available_bytes -= 500 * MB
    assert host.statistics().free_bytes == 4_915_200_000 - 4_500 * MB


def test_entering_twice_keeps_the_place(ledger):
    ledger.submit(claim(ANNE, 60, "a"))
    ledger.submit(claim(ANNE, 60, "a"))
    assert len(ledger.state.claims) == 1


def test_a_measured_budget_adds_back_no_more_than_use_grew_since_no_lease_was_out(memory):
    host = HostLedger(HostState(), alive=everybody, reading=memory.reading)
    host.add_client(client(ANNE, 13_107 * MB, reserve=0.2))
    host.add_client(client(BERT, 13_107 * MB, reserve=0.3))  # the larger reserve counts
    empty_bytes = host.budget_bytes()
    assert empty_bytes == 8_192 * MB - 4_915_200_000
    host.submit(claim(ANNE, 3_000 * MB))
    host.grant()
    memory.available_bytes -= 1_000 * MB
    assert host.budget_bytes() == empty_bytes
    memory.available_bytes -= 2_500 * MB
    assert host.budget_bytes() == empty_bytes - 500 * MB


def test_a_measured_budget_is_never_above_a_limit_that_somebody_named(memory):
    host = HostLedger(HostState(), alive=everybody, reading=memory.reading)
    host.add_client(client(ANNE, 13_107 * MB, reserve=0.2))
    host.add_client(client(BERT, 2_000 * MB))
    assert host.budget_bytes() == 2_000 * MB


def test_the_fewest_overtakes_that_any_program_allows_count():
    host = HostLedger(HostState(), alive=everybody, reading=never)
    host.add_client(HostClient(id="one", owner=ANNE, budget_bytes=100, max_overtakes=1))
    host.add_client(HostClient(id="two", owner=BERT, budget_bytes=100, max_overtakes=9))
    for size_bytes, name in ((50, "runs"), (90, "head"), (10, "overtakes"), (10, "too late")):
        host.submit(claim(ANNE, size_bytes, name))
    assert granted(host) == ["runs", "overtakes"]


def test_the_file_comes_to_say_what_a_client_knows_itself(ledger):
    kept, given_up, lost = (claim(ANNE, 10, name, client="client 1") for name in ("kept", "given up", "lost"))
    others = claim(BERT, 10, "another's", client="client 2")
    for each in (kept, given_up, others):
        ledger.submit(each)
    ledger.reconcile("client 1", [kept, lost])
    assert [each.id for each in ledger.state.claims] == ["kept", "another's", "lost"]


def test_memory_that_others_took_is_not_taken_for_that_of_the_leases(memory):
    grew = {1: 0}
    host = HostLedger(HostState(), alive=everybody, reading=memory.reading, tree_bytes=lambda pid: grew[pid])
    host.add_client(client(ANNE, 13_107 * MB, reserve=0.2, idle_bytes=0))
    empty_bytes = host.budget_bytes()
    host.submit(claim(ANNE, 3_000 * MB))
    host.grant()
    memory.available_bytes -= 2_000 * MB
    assert host.budget_bytes() == empty_bytes - 2_000 * MB, "its holder has touched nothing of it yet"
    grew[1] = 2_000 * MB
    assert host.budget_bytes() == empty_bytes


def test_what_a_holder_held_before_its_lease_is_no_part_of_it(memory):
    host = HostLedger(HostState(), alive=everybody, reading=memory.reading, tree_bytes=lambda _: 1_500 * MB)
    host.add_client(client(ANNE, 13_107 * MB, reserve=0.2, idle_bytes=1_000 * MB))
    empty_bytes = host.budget_bytes()
    host.submit(claim(ANNE, 3_000 * MB))
    host.grant()
    memory.available_bytes -= 2_000 * MB
    assert host.budget_bytes() == empty_bytes - 1_500 * MB


def test_a_lease_grows_by_as_many_units_as_are_free_while_no_request_waits(ledger):
    ledger.submit(claim(ANNE, 30, "suite"))
    assert ledger.grow("suite", 30, 8) == 0, "it is not granted yet"
    ledger.grant()
    assert ledger.grow("suite", 30, 1) == 1
    assert ledger.grow("suite", 30, 8) == 1
    assert ledger.statistics().reserved_bytes == 90
    assert ledger.grow("suite", 5, 8) == 2
    ledger.remove("suite")
    ledger.submit(claim(ANNE, 10, "small"))
    ledger.submit(claim(BERT, 95, "waits"))
    assert granted(ledger) == ["small"]
    assert ledger.grow("small", 10, 8) == 0


def test_two_leases_of_one_client_become_one(ledger):
    ledger.submit(claim(ANNE, 30, "a"))
    ledger.submit(claim(ANNE, 20, "b"))
    ledger.submit(claim(ANNE, 90, "waits"))
    ledger.grant()
    ledger.merge("a", "waits")
    ledger.merge("a", "b")
    assert [(each.id, each.bytes) for each in ledger.state.claims] == [("a", 50), ("waits", 90)]


def test_a_part_of_a_granted_claim_can_be_given_back_but_none_grows(ledger):
    ledger.submit(claim(ANNE, 90, "large"))
    ledger.submit(claim(BERT, 50, "waits"))
    ledger.shrink("waits", 10)
    assert granted(ledger) == ["large"]
    ledger.shrink("large", 50)
    ledger.shrink("large", 80)
    assert granted(ledger) == ["large", "waits"]
    assert ledger.statistics().reserved_bytes == 100
