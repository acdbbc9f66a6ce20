import os
import pickle
import threading

import pytest

from pytest_membudget import MemorySemaphore, OversizeError
from pytest_membudget.runtime.admission.budgets import AvailableBudget
from pytest_membudget.runtime.admission.process_scope import ProcessScope

MB = 1_000_000


def refuse_to_read():
    raise AssertionError("a budget that was given is used whole, whatever is available")


@pytest.fixture
def semaphore(clock):
    return MemorySemaphore("1 GB", clock=clock, wait=clock.wait, reading=refuse_to_read)


@pytest.fixture
def measured(memory, clock):
    return MemorySemaphore(reading=memory.reading, own_bytes=memory.own, clock=clock, wait=clock.wait)


def test_a_lease_takes_its_bytes_and_gives_them_back_once(semaphore):
    with semaphore.reserve("300 MB") as lease:
        assert lease.bytes == 300 * MB
        assert semaphore.statistics().reserved_bytes == 300 * MB
        lease.release()
        other = semaphore.reserve("1 GB")
    assert semaphore.statistics().reserved_bytes == 1000 * MB
    other.release()
    other.release()
    assert semaphore.statistics().reserved_bytes == 0


def test_a_block_that_raises_gives_its_bytes_back(semaphore):
    with pytest.raises(RuntimeError), semaphore.reserve("300 MB"):
        raise RuntimeError
    assert semaphore.statistics().leases == 0


def test_a_request_that_does_not_come_free_in_time_says_both_numbers_and_leaves_nothing(semaphore, clock):
    with semaphore.reserve("800 MB"):
        with pytest.raises(TimeoutError, match=r"286 MiB did not come free within 30 s: 763 MiB of 954 MiB"):
            semaphore.reserve("300 MB", timeout_s=30)
        assert clock.now_s == 30
        assert semaphore.statistics().waiting == 0
        assert semaphore.statistics().reserved_bytes == 800 * MB


def test_a_waiter_starts_when_enough_is_released(semaphore, clock):
    first = semaphore.reserve("800 MB")
    clock.at(12, first.release)
    assert semaphore.reserve("300 MB", timeout_s=30).bytes == 300 * MB
    assert clock.now_s == 12


def test_ctrl_c_in_the_wait_gives_everything_back(semaphore, clock):
    def interrupt():
        raise KeyboardInterrupt

    with semaphore.reserve("800 MB"):
        clock.at(1, interrupt)
        with pytest.raises(KeyboardInterrupt):
            semaphore.reserve("300 MB")
    assert semaphore.statistics().waiting == semaphore.statistics().reserved_bytes == 0


def test_ctrl_c_just_after_the_grant_gives_the_grant_back(semaphore, clock):
    first = semaphore.reserve("800 MB")

    def release_and_interrupt():
        first.release()
        raise KeyboardInterrupt

    clock.at(1, release_and_interrupt)
    with pytest.raises(KeyboardInterrupt):
        semaphore.reserve("300 MB")
    assert semaphore.statistics().reserved_bytes == 0


def test_acquire_nowait_answers_at_once(semaphore, clock):
    lease = semaphore.acquire_nowait("700 MB")
    assert lease is not None
    assert semaphore.acquire_nowait("700 MB") is None
    assert semaphore.statistics().waiting == 0
    assert clock.now_s == 0


def test_larger_than_the_budget_is_refused_with_both_numbers(semaphore):
    with pytest.raises(OversizeError, match=r"1\.86 GiB .* 954 MiB"):
        semaphore.reserve("2 GB")
    with pytest.raises(OversizeError):
        semaphore.acquire_nowait("2 GB")
    assert not semaphore.can_allocate("2 GB")
    assert not semaphore.wait_for_memory("2 GB", timeout_s=5)


def test_larger_than_the_budget_runs_alone_where_the_caller_says_so(semaphore, clock):
    small = semaphore.reserve("1 MB")
    clock.at(3, small.release)
    with semaphore.reserve("2 GB", exclusive=True) as alone:
        assert alone.exclusive
        assert clock.now_s == 3
        assert not semaphore.can_allocate("0 B")
    assert MemorySemaphore("1 GB", oversize="alone").reserve("2 GB").exclusive


def test_waiting_for_memory_keeps_none(semaphore, clock):
    lease = semaphore.reserve("800 MB")
    clock.at(2, lease.release)
    assert semaphore.wait_for_memory("300 MB", timeout_s=5)
    assert semaphore.statistics().reserved_bytes == 0
    with semaphore.reserve("800 MB"):
        assert not semaphore.wait_for_memory("300 MB", timeout_s=5)


def test_the_first_in_line_is_overtaken_at_most_so_often(clock):
    semaphore = MemorySemaphore("1 GB", max_overtakes=2, clock=clock, wait=clock.wait)
    running = semaphore.reserve("600 MB")
    overtakers = []

    def overtake():
        overtakers.append(semaphore.acquire_nowait("100 MB"))

    for at_s in (1, 2, 3):
        clock.at(at_s, overtake)
    clock.at(4, running.release)

    def leave():
        for lease in overtakers[:2]:
            lease.release()

    clock.at(6, leave)
    semaphore.reserve("950 MB")
    assert clock.now_s == 6
    assert [lease is not None for lease in overtakers] == [True, True, False]


def test_a_request_whose_time_is_over_no_longer_holds_up_those_behind_it(clock):
    unused = AvailableBudget(refuse_to_read, own_bytes=int)
    scope = ProcessScope(1000, max_overtakes=0, available=unused, clock=clock, wait=clock.wait)
    scope.submit(800, exclusive=False)
    first, behind = (scope.submit(size_bytes, exclusive=False) for size_bytes in (300, 100))
    assert behind.state == "waiting"
    assert not scope.wait(first, 0.0)
    assert behind.state == "granted"


def test_what_waits_for_an_overrun_is_granted_when_that_is_over(clock):
    unused = AvailableBudget(refuse_to_read, own_bytes=int)
    scope = ProcessScope(1000, max_overtakes=0, available=unused, clock=clock, wait=clock.wait)
    overrun = scope.submit(300, exclusive=False)
    scope.charge(overrun, 1200)
    behind = scope.submit(100, exclusive=False)
    assert behind.state == "waiting"
    scope.charge(overrun, 300)
    assert behind.state == "granted"


def test_an_overrun_pauses_admission_until_it_is_over(semaphore):
    lease = semaphore.reserve("300 MB")
    lease.charge("1.2 GB")
    assert semaphore.statistics().paused
    assert not semaphore.can_allocate("1 MB")
    lease.charge("200 MB")
    assert semaphore.can_allocate("700 MB")
    assert not semaphore.can_allocate("701 MB")


def test_without_a_budget_the_reference_figures_hold(measured):
    assert [measured.can_allocate(f"{size} MB") for size in (100, 500, 1_000, 5_000)] == [
        True,
        True,
        True,
        False,
    ]
    assert measured.statistics().budget_bytes == 8_192 * MB - 3_276_800_000


def test_what_was_granted_and_is_not_yet_resident_stays_charged(measured):
    with measured.reserve("4 GB"):
        assert not measured.can_allocate("1 GB")
        assert measured.can_allocate("900 MB")


def test_what_became_resident_is_not_charged_twice(measured, memory):
    with measured.reserve("4 GB"):
        memory.becomes_resident(4_000 * MB)
        assert measured.can_allocate("900 MB")
        assert not measured.can_allocate("1 GB")


def test_what_others_take_meanwhile_is_seen_at_once(measured, memory):
    with measured.reserve("1 GB"):
        memory.available_bytes -= 3_000 * MB
        assert measured.can_allocate("900 MB")
        assert not measured.can_allocate("1 GB")


def test_what_this_process_takes_beside_its_leases_is_not_mistaken_for_them(measured, memory):
    with measured.reserve("1 GB"):
        memory.own_bytes += 1_000 * MB  # while others gave back as much: available stays
        assert measured.can_allocate("3.9 GB")
        assert not measured.can_allocate("4 GB")


def test_what_others_give_back_is_noticed_while_waiting(measured, memory, clock):
    def others_leave():
        memory.available_bytes += 2_000 * MB

    clock.at(7, others_leave)
    assert measured.reserve("5 GB", timeout_s=60).bytes == 5_000 * MB
    assert 7 <= clock.now_s < 7.1


def test_without_a_budget_more_than_the_limit_less_the_reserve_is_refused(measured):
    with pytest.raises(OversizeError, match=r"13\.0 GiB .* 12\.2 GiB"):
        measured.reserve("14 GB")


def test_a_timeout_of_ages_is_as_good_as_none(semaphore, clock):
    first = semaphore.reserve("1 GB")
    clock.at(3, first.release)
    assert semaphore.reserve("1 GB", timeout_s=1e300).bytes == 1000 * MB
    second = MemorySemaphore("1 GB")
    threading.Timer(0.01, second.reserve("1 GB").release).start()
    assert second.reserve("1 GB", timeout_s=1e300)


def test_statistics_and_repr_are_live(semaphore):
    with semaphore.reserve("250 MB") as lease:
        assert (
            repr(semaphore)
            == "<MemorySemaphore of this process: 238 MiB of 954 MiB reserved by 1, 0 waiting>"
        )
        assert repr(lease) == "<Lease of 238 MiB, held>"
    assert repr(lease) == "<Lease of 238 MiB, released>"
    assert semaphore.statistics().free_bytes == 1000 * MB


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"budget": "4"}, "budget"),
        ({"scope": "galaxy"}, "scope"),
        ({"oversize": "maybe"}, "oversize"),
        ({"max_overtakes": -1}, "max_overtakes"),
        ({"reserve": 2}, "reserve"),
        ({"name": "nightly"}, "name"),
    ],
)
def test_a_nonsense_parameter_is_named(arguments, named):
    with pytest.raises(ValueError, match=named):
        MemorySemaphore(**arguments)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda semaphore: semaphore.reserve("many"), "size"),
        (lambda semaphore: semaphore.reserve("1 MB", timeout_s=-1), "timeout_s"),
        (lambda semaphore: semaphore.reserve("1 MB").charge(-1), "resident_bytes"),
    ],
)
def test_nonsense_in_a_call_is_named_and_leaves_nothing(semaphore, call, named):
    with pytest.raises(ValueError, match=named):
        call(semaphore)
    assert semaphore.statistics().waiting == 0


def test_it_cannot_be_sent_to_another_process(semaphore):
    with pytest.raises(TypeError, match='scope="host"'):
        pickle.dumps(semaphore)


@pytest.mark.processes
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_is_refused_and_cannot_give_back_its_parents_bytes(semaphore):
    lease = semaphore.reserve("300 MB")
    child = os.fork()
    if child == 0:
        lease.release()
        asks = (
            semaphore.statistics,
            lambda: semaphore.can_allocate("300 MB"),
            lambda: semaphore.acquire_nowait("300 MB"),
        )
        refused = 0
        for ask in asks:
            try:
                ask()
            except ValueError as error:
                refused += 'scope="host"' in str(error)
        os._exit(7 if refused == len(asks) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert semaphore.statistics().reserved_bytes == 300 * MB


def test_many_threads_never_hold_more_than_the_budget_together():
    semaphore = MemorySemaphore(100)
    held, most, lock = 0, 0, threading.Lock()

    def work(seed):
        nonlocal held, most
        for turn in range(60):
            size = (seed * 31 + turn * 17) % 70 + 1
            with semaphore.reserve(size):
                with lock:
                    held += size
                    most = max(most, held)
                with lock:
                    held -= size

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 0 < most <= 100
    assert held == semaphore.statistics().reserved_bytes == semaphore.statistics().waiting == 0
