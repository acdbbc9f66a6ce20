"""Messages between the coordinator and a worker: whole, in order, and nothing waits for a worker that does not read."""

import threading
from multiprocessing import Pipe

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_membudget.runtime.workers.channel import Inbox, Message, Outbox, receive, send

LARGE = 300_000


@pytest.fixture
def ends():
    ours, theirs = Pipe(duplex=True)
    yield ours, theirs
    for end in (ours, theirs):
        end.close()


@pytest.mark.parametrize("size", [0, 1, 64 * 1024 - 1, 64 * 1024, LARGE])
def test_a_message_arrives_as_it_was_sent(ends, size):
    ours, theirs = ends
    sender = threading.Thread(target=send, args=(ours, ("call", 7), b"x" * size))
    sender.start()
    assert receive(theirs) == ("call", 7, b"x" * size)
    sender.join()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 200_000), max_size=6))
def test_messages_are_put_together_from_what_there_is_to_read(sizes):
    ours, theirs = Pipe(duplex=True)
    inbox = Inbox(ours)

    def send_all():
        for number, size in enumerate(sizes):
            send(theirs, (number,), b"y" * size)
        theirs.close()

    sender = threading.Thread(target=send_all)
    sender.start()
    received = []
    while not inbox.at_end_s:
        received += inbox.read()
    sender.join()
    ours.close()
    assert received == [(number, b"y" * size) for number, size in enumerate(sizes)]


def test_nothing_waits_for_a_worker_that_does_not_read(ends):
    ours, theirs = ends
    outbox = Outbox(ours)
    for number in range(200):
        outbox.put([Message(number, ("call", number), b"z" * LARGE)])  # 60 MB: no buffer holds that
    assert [receive(theirs)[1] for _ in range(200)] == list(range(200))


def test_small_messages_need_no_thread_while_the_worker_replies(ends, monkeypatch):
    ours, theirs = ends
    outbox = Outbox(ours)
    monkeypatch.setattr(threading.Thread, "start", lambda _: pytest.fail("a thread was started"))
    for number in range(1000):
        outbox.put([Message(number, ("call", number), b"small")])
        assert receive(theirs)[1] == number
        outbox.was_read(number)


@pytest.mark.parametrize("sizes", [[0, 10, 1000], [10, 64 * 1024 - 1, 5], [10, LARGE, 10]])
def test_messages_that_are_put_together_arrive_one_by_one(ends, sizes):
    ours, theirs = ends
    Outbox(ours).put([Message(place, ("call", place), b"t" * size) for place, size in enumerate(sizes)])
    assert [receive(theirs) for _ in sizes] == [
        ("call", place, b"t" * size) for place, size in enumerate(sizes)
    ]


def test_where_no_thread_can_be_had_it_is_said_and_the_rest_is_kept(ends, monkeypatch):
    ours, theirs = ends
    outbox = Outbox(ours)

    def no_thread(_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", no_thread)
    outbox.put([Message(1, ("call", 1), b"")])
    with pytest.raises(RuntimeError, match="can't start new thread"):
        outbox.put([Message(2, ("call", 2), b"z" * LARGE)])
    assert receive(theirs) == ("call", 1, b"")


def test_what_is_put_after_the_end_is_dropped(ends):
    ours, _ = ends
    outbox = Outbox(ours)
    outbox.close()
    outbox.put([Message(1, ("call", 1), b"late")])
    assert ours.closed
