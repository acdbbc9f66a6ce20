import errno
import gc
import os
import pickle
import time

import pytest

from pytest_membudget import MemorySemaphore, OversizeError
from pytest_membudget.runtime.admission import budgets as pressure
from pytest_membudget.runtime.admission import host_scope
from pytest_membudget.runtime.admission.host_state_file import HostStateFile

MB = 1_000_000

pytestmark = pytest.mark.usefixtures("host_directory")


@pytest.fixture
def shared(clock):
    def make(budget="1 GB", **more):
        return MemorySemaphore(budget, scope="host", name="nightly", clock=clock, wait=clock.wait, **more)

    return make


def test_two_semaphores_of_one_name_share_one_budget(shared):
    one, other = shared(), shared()
    with one.reserve("700 MB") as lease:
        assert lease.bytes == 700 * MB
        assert other.acquire_nowait("400 MB") is None
        assert other.statistics().reserved_bytes == 700 * MB
        assert other.statistics().scope == "host"
    assert other.acquire_nowait("400 MB") is not None


def test_a_program_whose_name_is_not_utf_8_takes_part(shared):
    with shared(label="sort \udcff").reserve("700 MB"):
        assert shared().acquire_nowait("400 MB") is None


def test_other_names_are_other_budgets(shared):
    with shared().reserve("1 GB"):
        assert MemorySemaphore("1 GB", scope="host", name="daily").can_allocate("1 GB")
        assert MemorySemaphore("1 GB", scope="host").can_allocate("1 GB")


def test_the_smallest_limit_wins_until_its_semaphore_is_closed_or_dropped(shared):
    large = shared("1 GB")
    with shared("300 MB"):
        assert large.statistics().budget_bytes == 300 * MB
        with pytest.raises(OversizeError, match="286 MiB"):
            large.reserve("400 MB")
    assert large.statistics().budget_bytes == 1000 * MB
    dropped = shared("200 MB")
    assert large.statistics().budget_bytes == 200 * MB
    del dropped
    gc.collect()
    assert large.statistics().budget_bytes == 1000 * MB


def test_a_waiter_is_granted_by_whoever_releases(shared, clock):
    one, other = shared(), shared()
    lease = one.reserve("700 MB")
    clock.at(5, lease.release)
    assert other.reserve("400 MB", timeout_s=60).bytes == 400 * MB
    assert 5 <= clock.now_s < 5.2


def test_a_waiter_whose_time_is_over_leaves_nothing(shared, clock):
    one, other = shared(), shared()
    with one.reserve("700 MB"):
        with pytest.raises(TimeoutError, match=r"381 MiB did not come free within 2 s: 668 MiB of 954 MiB"):
            other.reserve("400 MB", timeout_s=2)
        assert one.statistics().waiting == 0
    assert one.statistics().reserved_bytes == 0


def test_ctrl_c_in_the_wait_gives_everything_back(shared, clock):
    def interrupt():
        raise KeyboardInterrupt

    one, other = shared(), shared()
    with one.reserve("700 MB"):
        clock.at(1, interrupt)
        with pytest.raises(KeyboardInterrupt):
            other.reserve("400 MB")
        assert one.statistics().waiting == 0


def test_an_overrun_pauses_the_other_programs_too(shared):
    one, other = shared(), shared()
    with one.reserve("500 MB") as lease:
        lease.charge("1.1 GB")
        assert other.statistics().paused
        assert not other.can_allocate("1 MB")
    assert other.can_allocate("1 GB")


def test_alone_means_alone_on_the_host(shared):
    one, other = shared(oversize="alone"), shared()
    with one.reserve("5 GB") as alone:
        assert alone.exclusive
        assert not other.can_allocate("1 MB")


def test_leases_survive_the_loss_of_the_file(shared, host_directory):
    one, other = shared(), shared()
    with one.reserve("700 MB"):
        for path in host_directory.iterdir():
            path.unlink()
        assert one.statistics().reserved_bytes == 700 * MB
        assert not other.can_allocate("400 MB")
    assert other.can_allocate("1 GB")


def test_ctrl_c_in_a_release_gives_the_bytes_back_at_the_next_step(shared, monkeypatch):
    def interrupt(self):
        raise KeyboardInterrupt

    one = shared()
    lease = one.reserve("700 MB")
    with monkeypatch.context() as patched:
        patched.setattr(HostStateFile, "transaction", interrupt)
        with pytest.raises(KeyboardInterrupt):
            lease.release()
    assert one.can_allocate("1 GB")


def test_a_closed_one_takes_no_more_requests_but_takes_leases_back(shared):
    one, other = shared(), shared()
    lease = one.reserve("700 MB")
    one.close()
    with pytest.raises(ValueError, match="closed"):
        one.reserve("1 MB")
    assert not other.can_allocate("400 MB")
    lease.release()
    assert other.can_allocate("1 GB")


def test_it_can_be_sent_to_another_process():
    original = MemorySemaphore("1 GB", scope="host", name="nightly", oversize="alone", max_overtakes=3)
    with original.reserve("700 MB"):
        copy = pickle.loads(pickle.dumps(original))
        assert copy.statistics() == original.statistics()
        assert copy.oversize == "alone"


def test_without_a_budget_what_is_available_counts_for_all(shared, memory):
    measured, given = shared(None, reading=memory.reading), shared("8 GB", reading=memory.reading)
    assert [measured.can_allocate(f"{size} MB") for size in (100, 500, 1_000, 5_000)] == [
        True,
        True,
        True,
        False,
    ]
    assert not given.can_allocate("5 GB"), "a program that measures shares this budget"
    measured.close()
    assert given.can_allocate("8 GB")


@pytest.mark.parametrize("name", ["", 3])
def test_a_nonsense_name_is_refused(name):
    with pytest.raises(ValueError, match="name"):
        MemorySemaphore("1 GB", scope="host", name=name)


@pytest.mark.processes
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_takes_part_itself_and_cannot_release_its_parents_lease():
    semaphore = MemorySemaphore("1 GB", scope="host", name="nightly")
    lease = semaphore.reserve("700 MB")
    child = os.fork()
    if child == 0:
        lease.release()
        refused = semaphore.acquire_nowait("400 MB") is None
        kept = semaphore.acquire_nowait("300 MB")
        os._exit(7 if refused and kept else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert semaphore.statistics().reserved_bytes == 700 * MB, "what the child kept came back with its end"


@pytest.mark.processes
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_that_only_asks_puts_back_none_of_its_parents_leases():
    semaphore = MemorySemaphore("1 GB", scope="host", name="nightly")
    lease = semaphore.reserve("700 MB")
    go_on, released = os.pipe()
    child = os.fork()
    if child == 0:
        os.read(go_on, 1)
        os._exit(7 if semaphore.statistics().reserved_bytes == 0 else 1)
    lease.release()
    os.write(released, b"x")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert semaphore.statistics().reserved_bytes == 0


@pytest.fixture
def full_disk(monkeypatch):
    """A switch: while it is on the state cannot be written."""
    monkeypatch.setattr(host_scope, "RETRY_S", 0.01)
    replace, full = HostStateFile._replace, []

    def refuse(self, content):
        if full:
            raise OSError(errno.ENOSPC, "No space left on device", str(self.path))
        replace(self, content)

    monkeypatch.setattr(HostStateFile, "_replace", refuse)
    return full


@pytest.mark.processes
def test_a_release_on_a_full_disk_does_not_raise_and_is_written_down_later(full_disk):
    one = MemorySemaphore("1 GB", scope="host", name="nightly")
    other = MemorySemaphore("1 GB", scope="host", name="nightly")
    with one.reserve("700 MB"):
        full_disk.append(True)
    assert not other.can_allocate("400 MB")
    full_disk.clear()
    patience_s = time.monotonic() + 30
    while other.statistics().reserved_bytes and time.monotonic() < patience_s:
        time.sleep(0.01)
    assert other.statistics().reserved_bytes == 0


def test_a_request_that_waits_goes_on_waiting_while_the_disk_is_full(shared, clock, full_disk):
    one, other = shared(), shared()
    lease = one.reserve("700 MB")
    clock.at(1, lambda: full_disk.append(True))
    clock.at(3, full_disk.clear)
    clock.at(5, lease.release)
    assert other.reserve("400 MB", timeout_s=60).bytes == 400 * MB
    assert 5 <= clock.now_s < 5.2


def test_a_request_on_a_full_disk_says_so_and_leaves_nothing(shared, full_disk):
    one = shared()
    full_disk.append(True)
    with pytest.raises(OSError, match="No space left"):
        one.reserve("700 MB")
    full_disk.clear()
    assert one.can_allocate("1 GB")


def test_what_is_started_inside_a_lease_shares_its_bytes_and_not_the_budget(shared, monkeypatch):
    outer = shared()
    with outer.reserve("600 MB") as lease:
        with monkeypatch.context() as inside:
            inside.setenv(*next(iter(lease.environment().items())))
            inner = shared()
            assert inner.statistics().budget_bytes == 600 * MB
            with inner.reserve("500 MB") as inner_lease:
                assert not inner.can_allocate("200 MB")
                inside.setenv(*next(iter(inner_lease.environment().items())))
                assert shared().statistics().budget_bytes == 500 * MB
            with pytest.raises(OversizeError, match="572 MiB"):
                inner.reserve("700 MB")
            assert shared("100 MB").statistics().budget_bytes == 100 * MB
            assert MemorySemaphore("1 GB", scope="host", name="daily").can_allocate("1 GB")
        assert outer.statistics().reserved_bytes == 600 * MB


def test_what_outlives_the_lease_it_was_started_in_takes_part_like_any_other(
    shared, monkeypatch, host_directory
):
    outer = shared()
    with outer.reserve("600 MB") as lease:
        monkeypatch.setenv(*next(iter(lease.environment().items())))
        shared().close()
    assert shared().statistics().budget_bytes == 1000 * MB
    assert len(list(host_directory.glob("*.json"))) == 1, "the budget inside the lease went with it"


def test_a_lease_of_one_process_is_handed_to_no_program():
    with MemorySemaphore("1 GB").reserve("1 MB") as lease:
        assert lease.environment() == {}


def test_the_status_of_a_host_without_programs_is_the_budget_that_the_first_would_find(memory):
    memory.available_bytes = 1_000 * MB
    status = host_scope.host_status(reading=memory.reading)
    assert status.programs == 0
    assert status.budget_bytes == pressure.unreserved_bytes(memory.reading(), pressure.RESERVE_SHARE, 0)
    assert status.budget_bytes < status.ceiling_bytes
    memory.available_bytes = memory.total_bytes
    idle = host_scope.host_status(reading=memory.reading)
    assert idle.budget_bytes == idle.ceiling_bytes < memory.total_bytes


def test_the_status_says_how_long_ago_a_program_asked(shared):
    before_s = time.monotonic()
    with shared().reserve("100 MB"):
        (request,) = host_scope.host_status("nightly").requests
        assert 0 <= request.age_s <= time.monotonic() - before_s
