import asyncio
import threading

import pytest

from pytest_membudget import MemorySemaphore, OversizeError
from pytest_membudget.runtime.admission.budgets import PressureGate

pytestmark = pytest.mark.usefixtures("host_directory")


@pytest.fixture(params=["process", "host"])
def semaphore(request):
    return MemorySemaphore("1 GB", scope=request.param)


async def until_waiting(semaphore, waiting):
    while semaphore.statistics().waiting != waiting:  # noqa: ASYNC110 - other programs announce nothing
        await asyncio.sleep(0.001)


@pytest.mark.asyncio
async def test_a_coroutine_waits_its_turn_and_the_event_loop_goes_on(semaphore):
    order = []

    async def take(name):
        async with semaphore.reserve_async("700 MB") as lease:
            order.append((name, lease.bytes))

    async with semaphore.reserve_async("700 MB"):
        tasks = [asyncio.create_task(take(name)) for name in "ab"]
        await until_waiting(semaphore, 2)
        assert order == []
    await asyncio.gather(*tasks)
    assert order == [("a", 700_000_000), ("b", 700_000_000)]
    assert semaphore.statistics().reserved_bytes == 0


@pytest.mark.asyncio
async def test_a_cancelled_wait_leaves_the_queue_and_holds_nothing_up(semaphore):
    async def take(size):
        async with semaphore.reserve_async(size):
            await asyncio.sleep(3600)

    async with semaphore.reserve_async("700 MB"):
        large, small = asyncio.create_task(take("900 MB")), asyncio.create_task(take("200 MB"))
        await until_waiting(semaphore, 1)
        large.cancel()
        await asyncio.wait([large])
        assert semaphore.statistics().waiting == 0
        small.cancel()
        await asyncio.wait([small])
    assert semaphore.statistics().reserved_bytes == 0


@pytest.mark.asyncio
async def test_cancelled_in_the_very_moment_of_the_grant_nothing_stays_reserved(semaphore):
    async def take():
        async with semaphore.reserve_async("700 MB"):
            await asyncio.sleep(3600)

    lease = semaphore.reserve("700 MB")
    task = asyncio.create_task(take())
    await until_waiting(semaphore, 1)
    lease.release()
    task.cancel()
    await asyncio.wait([task])
    assert semaphore.statistics().reserved_bytes == 0


@pytest.mark.asyncio
async def test_a_wait_whose_time_is_over_says_both_numbers(semaphore):
    with semaphore.reserve("700 MB"), pytest.raises(TimeoutError, match=r"381 MiB did not come free"):
        async with semaphore.reserve_async("400 MB", timeout_s=0.01):
            pass
    with pytest.raises(OversizeError):
        async with semaphore.reserve_async("2 GB"):
            pass
    assert semaphore.can_allocate("1 GB")


@pytest.mark.asyncio
async def test_an_error_inside_the_block_gives_the_bytes_back(semaphore):
    with pytest.raises(ZeroDivisionError):
        async with semaphore.reserve_async("700 MB"):
            raise ZeroDivisionError
    assert semaphore.can_allocate("1 GB")


@pytest.mark.asyncio
async def test_a_thread_that_releases_wakes_a_coroutine(semaphore):
    lease = semaphore.reserve("700 MB")

    async def take():
        async with semaphore.reserve_async("700 MB"):
            return threading.current_thread() is threading.main_thread()

    task = asyncio.create_task(take())
    await until_waiting(semaphore, 1)
    await asyncio.to_thread(lease.release)
    assert await task


def test_a_loop_that_was_closed_meanwhile_hinders_no_release():
    semaphore = MemorySemaphore("1 GB")
    lease = semaphore.reserve("700 MB")

    async def wait_in_vain():
        async with semaphore.reserve_async("700 MB"):
            pass

    loop = asyncio.new_event_loop()
    coroutine = wait_in_vain()
    loop.run_until_complete(asyncio.wait([loop.create_task(coroutine)], timeout=0.01))
    loop.close()
    lease.release()
    assert semaphore.statistics().leases == 1


@pytest.mark.asyncio
async def test_a_coroutine_starts_once_memory_comes_free_without_a_release(memory):
    available_bytes, memory.available_bytes = memory.available_bytes, 0
    semaphore = MemorySemaphore(
        reading=memory.reading, own_bytes=memory.own, gate=PressureGate(NeverStalled())
    )

    async def take():
        async with semaphore.reserve_async("1 GB") as lease:
            return lease.bytes

    task = asyncio.create_task(take())
    await until_waiting(semaphore, 1)
    memory.available_bytes = available_bytes
    assert await task == 1_000_000_000


class NeverStalled:
    source = "scripted"

    def is_stalled(self):
        return False
