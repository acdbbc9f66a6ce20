import threading

import pytest

from pytest_membudget import DynamicSemaphore

MB = 1_000_000


@pytest.fixture
def pressed(memory, clock):
    def wait(condition, timeout_s):
        return clock.wait(threading.Event(), timeout_s)

    return DynamicSemaphore(initial_permits=4, eta=0.75, reading=memory.reading, clock=clock, wait=wait)


@pytest.mark.parametrize(
    ("used", "permits"),
    [(0.0, 4), (0.5, 4), (0.75, 4), (0.80, 3), (0.85, 2), (0.95, 1), (0.999, 1), (1.0, 1)],
)
def test_permits_follow_the_pressure_and_never_go_below_one(pressed, memory, used, permits):
    memory.available_bytes = round(memory.total_bytes * (1 - used))
    assert pressed.permits == permits


def test_a_held_permit_is_never_revoked_and_those_withheld_come_back(pressed, memory):
    assert all(pressed.acquire(blocking=False) for _ in range(4))
    memory.available_bytes = 0
    assert (pressed.held, pressed.permits) == (4, 1)
    for _ in range(3):
        pressed.release()
        assert not pressed.acquire(blocking=False)
    pressed.release()
    assert pressed.acquire(blocking=False), "one may always run"
    memory.available_bytes = memory.total_bytes
    assert pressed.acquire(blocking=False)


def test_it_counts_like_any_semaphore(pressed):
    with pressed:
        assert [pressed.acquire(blocking=False) for _ in range(4)] == [True, True, True, False]
    assert pressed.acquire(blocking=False)
    assert not pressed.acquire(timeout_s=3)


def test_a_waiter_starts_when_memory_comes_back(pressed, memory, clock):
    memory.available_bytes = 0
    pressed.acquire()

    def comes_back():
        memory.available_bytes = memory.total_bytes

    clock.at(5, comes_back)
    assert pressed.acquire(timeout_s=60)
    assert clock.now_s == pytest.approx(5, abs=0.1)


def test_releasing_what_is_not_held_is_an_error(pressed):
    with pytest.raises(ValueError, match="more often than acquired"):
        pressed.release()


@pytest.mark.parametrize(
    ("arguments", "named"), [({"initial_permits": 0}, "initial_permits"), ({"eta": 0}, "eta")]
)
def test_a_nonsense_parameter_is_named(arguments, named):
    with pytest.raises(ValueError, match=named):
        DynamicSemaphore(**arguments)


def test_threads_share_the_permits():
    semaphore = DynamicSemaphore(initial_permits=3)
    inside, most, lock = 0, 0, threading.Lock()

    def work():
        nonlocal inside, most
        for _ in range(20):
            with semaphore:
                with lock:
                    inside += 1
                    most = max(most, inside)
                with lock:
                    inside -= 1

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 1 <= most <= 3
    assert semaphore.held == 0
