"""What is told of the stacks of threads: the user's lines, the ends of what libraries do between, and nothing of ours."""

import asyncio
import sys
import threading
from pathlib import Path

import pytest

from pytest_membudget.measurement.thread_stacks import frames_of, stacks


class Asker(threading.Thread):
    """Asks for the stacks while the thread that made it waits: what runs at that moment is known."""

    def __init__(self, led_here=()):
        super().__init__()
        self.asked = (threading.get_ident(), led_here)
        self.told = ""

    def run(self):
        self.told = stacks(*self.asked)

    def ask(self):
        self.start()
        self.join()


def wait_here(turn, done):
    turn.set()
    done.wait()


@pytest.fixture
def start():
    """Starts a thread; waits until it calls `turn`."""
    done, threads = threading.Event(), []

    def _start(name, target, *args):
        turn = threading.Event()
        threads.append(threading.Thread(target=target, args=(*args, turn, done), name=name))
        threads[-1].start()
        assert turn.wait(60)

    yield _start
    done.set()
    for thread in threads:
        thread.join()


def test_the_stack_begins_at_the_innermost_frame_that_led_to_the_block():
    asker = Asker(frames_of(sys._getframe()))

    def block():
        asker.ask()

    block()
    lines = asker.told.splitlines()
    assert lines[0] == "It was doing this, newest call last:"
    assert "in test_the_stack_begins" in lines[1]
    assert "in block" in lines[3]
    assert "_pytest" not in asker.told
    assert "pluggy" not in asker.told


def test_of_library_frames_between_the_users_the_ends_are_shown():
    async def work():
        asker.ask()

    asker = Asker(frames_of(sys._getframe()))
    asyncio.run(work())
    assert "in test_of_library_frames" in asker.told
    assert "in work" in asker.told
    assert " more in asyncio\n" in asker.told
    assert asker.told.count("asyncio/") == 2


def test_of_a_deep_recursion_both_ends_are_shown():
    def even(depth):
        odd(depth - 1) if depth else asker.ask()

    def odd(depth):
        even(depth - 1)

    asker = Asker(frames_of(sys._getframe()))
    even(200)
    assert len(asker.told.splitlines()) < 70
    assert f" more in {Path(__file__).stem}\n" in asker.told


def test_another_thread_is_shown_where_it_runs_the_users_code(start):
    start("pump", wait_here)
    asker = Asker()
    asker.ask()
    _, _, told = asker.told.partition("Meanwhile thread pump:\n")
    assert "in wait_here" in told.splitlines()[0]
    assert "_bootstrap" not in told


def test_threads_of_libraries_are_counted_alone():
    before = Asker()
    before.ask()
    done = threading.Event()
    thread = threading.Thread(target=done.wait, name="of-a-library")
    thread.start()
    asker = Asker()
    asker.ask()
    done.set()
    thread.join()
    assert "of-a-library" not in asker.told
    assert _left_out(asker.told) == _left_out(before.told) + 1


def _left_out(told):
    _, _, count = told.partition("Left out: ")
    return int(count.split()[0]) if count else 0


def test_a_stack_without_a_line_of_the_users_is_shown_from_its_first_frame():
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    told = stacks(thread.ident)
    done.set()
    thread.join()
    assert told.startswith("It was doing this")
    assert "threading.py" in told
