"""Streams of outcomes, options of calls, and inputs that an earlier run has done."""

import asyncio
import contextlib
import gc
import io
import json
import sys
import threading
import time
import weakref
from pathlib import Path

import executor_jobs as jobs
import pytest
import tqdm

from pytest_membudget import (
    ExecutorPolicy,
    FallbackExecutor,
    OversizeError,
    TaskOverLimitError,
    TaskTimeoutError,
    UnreadableFileError,
    UsageError,
)
from pytest_membudget.runtime.executor import outcomes as outcomes_module
from pytest_membudget.runtime.executor.done_file import key_of
from pytest_membudget.runtime.executor.engine import CallOptions
from pytest_membudget.runtime.executor.outcomes import Outcomes, as_they_end, drawn, in_order

MB = 1_000_000


@pytest.fixture
def threads():
    with FallbackExecutor(2, budget="1 GB", levels=("thread",), max_in_flight=4) as executor:
        yield executor


def test_a_stream_yields_each_outcome_once(threads):
    outcomes = list(threads.stream(jobs.square, iter(range(20))))
    assert sorted(outcome.value for outcome in outcomes) == [n * n for n in range(20)]
    assert {outcome.cause for outcome in outcomes} == {"ok"}


def inputs_that_break_after(count):
    yield from range(count)
    raise ConnectionError("the list ended early")


@pytest.mark.parametrize("ordered", [True, False])
def test_what_was_drawn_is_yielded_before_the_error_of_the_inputs(threads, ordered):
    values = []
    with pytest.raises(ConnectionError, match="ended early"):
        for outcome in threads.stream(jobs.square, inputs_that_break_after(3), ordered=ordered):
            values.append(outcome.value)  # noqa: PERF401 - it raises
    assert sorted(values) == [0, 1, 4]


def test_an_asynchronous_stream_yields_them_too(threads):
    values = []

    async def main():
        async for outcome in threads.stream_async(jobs.square, inputs_that_break_after(3)):
            values.append(outcome.value)  # noqa: PERF401 - it raises

    with pytest.raises(ConnectionError, match="ended early"):
        asyncio.run(main())
    assert sorted(values) == [0, 1, 4]


def test_a_run_notes_what_was_done_before_the_inputs_broke(threads, tmp_path):
    with pytest.raises(ConnectionError, match="ended early"):
        threads.run(jobs.square, inputs_that_break_after(3), done=tmp_path / "done")
    assert len((tmp_path / "done").read_text().splitlines()) >= 3


@pytest.mark.parametrize("order", [as_they_end, in_order])
def test_inputs_are_drawn_while_it_waits_where_there_is_more_room(threads, monkeypatch, order):
    monkeypatch.setattr(outcomes_module, "WAIT_PIECE_S", 0.01)
    room, second = [1], threading.Event()

    def job(number):
        room[0] = 2
        if number == 1:
            second.set()
        return second.wait(30)

    engine, options = threads._engine, CallOptions(memory=1000)  # known, so that both start at once
    items = drawn(range(2), lambda number: engine.charge_rule(options).charge(job, number))
    outcomes = Outcomes(engine, job, items, options, window=lambda: room[0])
    assert [ended.outcome.value for ended in order(outcomes)] == [True, True]


def test_an_ordered_stream_keeps_the_order_of_its_inputs(threads):
    seconds = [0.05, 0.0, 0.02, 0.0, 0.01, 0.0]
    assert [outcome.item for outcome in threads.stream(time.sleep, seconds, ordered=True)] == seconds


@pytest.mark.parametrize("ordered", [False, True])
def test_a_stream_draws_no_more_inputs_than_there_is_room_for(threads, ordered):
    drawn = []

    def inputs():
        for number in range(40):
            drawn.append(number)
            yield number

    for read, _ in enumerate(threads.stream(jobs.square, inputs(), ordered=ordered)):
        assert len(drawn) - read <= 5


class Result:
    pass


def make_result(_):
    return Result()


@pytest.mark.parametrize("ordered", [False, True])
def test_results_are_freed_when_they_were_read_without_a_collection(threads, ordered):
    gc.disable()
    try:
        results = [
            weakref.ref(outcome.value) for outcome in threads.stream(make_result, range(10), ordered=ordered)
        ]
        results += [weakref.ref(result) for result in threads.map(make_result, range(10))]
        results += [weakref.ref(threads.submit(make_result, n).result()) for n in range(10)]
        results += [weakref.ref(value) for value in threads.run(make_result, range(10)).values]
        threads.submit(jobs.square, 1).result()
        assert sum(result() is not None for result in results) <= 2
    finally:
        gc.enable()


def test_letting_go_of_a_stream_cancels_what_has_not_started(threads):
    stream = threads.stream(time.sleep, iter([0.0, 0.05, 0.05, 0.05]))
    next(stream)
    stream.close()
    assert threads.submit(jobs.square, 3).result() == 9


def test_an_event_loop_goes_on_while_outcomes_are_awaited(threads):
    ticks = []

    async def tick():
        while True:
            ticks.append(1)
            await asyncio.sleep(0.005)

    async def main():
        ticking = asyncio.create_task(tick())
        found = [outcome.item async for outcome in threads.stream_async(time.sleep, [0.05] * 6)]
        ticking.cancel()
        return found

    assert asyncio.run(main()) == [0.05] * 6
    assert len(ticks) > 5


def test_an_async_stream_draws_more_while_it_waits_where_there_is_more_room(threads, monkeypatch):
    together, windows = threading.Barrier(2, timeout=30), iter([1, 1])
    monkeypatch.setattr(threads._engine, "lazy_window", lambda: next(windows, 2))

    async def main():
        return [
            outcome.ok async for outcome in threads.stream_async(lambda _: together.wait(), [1, 2], memory=1)
        ]

    assert asyncio.run(main()) == [True, True]


def test_a_task_may_end_after_its_event_loop_was_closed(threads, caplog):
    has_begun, may_end = threading.Event(), threading.Event()

    def task(_):
        has_begun.set()
        may_end.wait(10)

    async def leave():
        stream = threads.stream_async(task, [1])
        reading = asyncio.create_task(anext(stream))
        await asyncio.to_thread(has_begun.wait, 10)
        reading.cancel()

    asyncio.run(leave())
    may_end.set()
    threads.shutdown(wait=True)
    assert caplog.records == []


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Bar(contextlib.nullcontext):
    """Stands for tqdm's, and counts."""

    made = None

    def __init__(self, **options):
        super().__init__(self)
        self.total, self.count = options["total"], 0
        Bar.made = self

    def update(self):
        self.count += 1


async def read_async(threads):
    return [outcome async for outcome in threads.stream_async(jobs.square, range(5))]


@pytest.mark.parametrize(
    "read",
    [
        lambda threads: list(threads.stream(jobs.square, range(5))),
        lambda threads: list(threads.stream(jobs.square, range(5), ordered=True)),
        lambda threads: asyncio.run(read_async(threads)),
        lambda threads: threads.run(jobs.square, range(5)),
    ],
    ids=["stream", "ordered", "async", "run"],
)
def test_a_terminal_shows_how_many_inputs_have_ended(threads, monkeypatch, read):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr(tqdm, "tqdm", Bar)
    read(threads)
    assert (Bar.made.count, Bar.made.total) == (5, 5)


@pytest.mark.parametrize("items", ["one.csv", b"one.csv", Path("one.csv"), 3])
def test_one_path_in_place_of_a_list_is_refused(threads, items):
    for ask in (threads.run, threads.stream):
        with pytest.raises(UsageError, match="give a list of inputs"):
            list(ask(jobs.square, items))


async def drawn_asynchronously():
    yield 1


def test_inputs_that_only_async_for_reads_are_refused_with_what_to_give(threads):
    with pytest.raises(UsageError, match=r"give \[item async for item in items\]"):
        threads.run(jobs.square, drawn_asynchronously())


def too_much_for_two(number):
    if number == 2:
        raise KeyError(number)
    return "2 GB" if number == 3 else "1 MB"


def test_a_memory_function_that_fails_costs_its_own_input_alone(threads):
    batch = threads.run(jobs.square, range(5), memory=too_much_for_two)
    assert [outcome.value for outcome in batch.outcomes] == [0, 1, None, None, 16]
    assert isinstance(batch.outcomes[2].error, UsageError)
    assert isinstance(batch.outcomes[3].error, OversizeError)
    assert [outcome.estimate_bytes for outcome in batch.outcomes[:2]] == [MB, MB]
    with pytest.raises(UsageError, match="raised KeyError"):
        threads.options(memory=too_much_for_two).submit(jobs.square, 2).result()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"memory": "much"}, "memory"),
        ({"size_bytes": -1}, "size_bytes"),
        ({"limit": 0.5}, "limit is 0.5"),
        ({"limit": "much"}, "limit"),
        ({"timeout_s": 0}, "timeout_s"),
    ],
)
def test_options_that_make_no_sense_are_named(threads, options, words):
    with pytest.raises(UsageError, match=words):
        threads.options(**options)


@pytest.mark.processes
@pytest.mark.kernel
def test_a_runaway_is_ended_and_named_and_its_neighbours_are_not():
    with FallbackExecutor(2, budget="1 GB") as executor:
        limited = executor.options(memory="50 MB", limit="100 MB")
        runaway = limited.submit(jobs.fill_slowly, 600 * MB)
        others = [limited.submit(jobs.square, number) for number in range(20)]
        error = runaway.exception(60)
        assert [other.result(60) for other in others] == [number * number for number in range(20)]
    assert isinstance(error, TaskOverLimitError)
    assert error.limit == 100 * MB
    assert 100 * MB < error.reached < 200 * MB
    assert [event.kind for event in executor.events] == ["over-limit"]


@pytest.mark.processes
def test_options_bound_the_time_of_their_calls_alone():
    with FallbackExecutor(1, budget="1 GB") as executor:
        with pytest.raises(TaskTimeoutError):
            executor.options(timeout_s=0.3).submit(time.sleep, 30).result()
        assert executor.options(timeout_s=None).run(jobs.square, range(3)).values == [0, 1, 4]


@pytest.mark.parametrize("few", [1, 3])
@pytest.mark.processes
def test_one_input_is_as_safe_as_a_hundred(few):
    with FallbackExecutor(2, budget="1 GB", policy=ExecutorPolicy(retries=0)) as executor:
        outcomes = executor.run(jobs.die, range(few)).outcomes
    assert [(outcome.level, outcome.cause) for outcome in outcomes] == [("process", "killed")] * few


def test_the_time_limits_by_category_are_told_once_before_work(tmp_path, caplog):
    from pytest_membudget.runtime.executor import outcomes

    outcomes.announce_time_limits.cache_clear()
    path = tmp_path / "a.txt"
    path.write_text("a")
    with FallbackExecutor(1, budget="1 GB", levels=("thread",)) as executor:
        executor.run(jobs.file_size, [path] * 3)
        assert len(caplog.records) == 1
        assert "timeout_s=None) lifts these limits" in caplog.text


# `done=` ----------------------------------------------------------------------------------------------------------------


def test_what_ended_well_is_skipped_by_the_next_run(threads, tmp_path):
    done = tmp_path / "night.done"
    first = threads.run(jobs.fail_on_three, range(5), done=done)
    assert [outcome.cause for outcome in first.outcomes] == ["ok", "ok", "ok", "error", "ok"]
    second = threads.run(jobs.fail_on_three, range(6), done=done)
    assert [outcome.cause for outcome in second.outcomes] == ["done", "done", "done", "error", "done", "ok"]
    assert {outcome.cause for outcome in threads.stream(jobs.fail_on_three, range(3), done=done)} == {"done"}


def test_a_file_that_was_written_again_is_a_new_input(threads, tmp_path):
    path, done = tmp_path / "a.txt", tmp_path / "night.done"
    path.write_text("a")
    causes = []
    for text in ("a", "ab"):
        causes += [threads.run(jobs.file_size, [str(path)], done=done).outcomes[0].cause for _ in range(2)]
        path.write_text(text + "c")
    assert causes == ["ok", "done", "ok", "done"]


def test_another_functions_inputs_are_not_done(threads, tmp_path):
    done = tmp_path / "night.done"
    threads.run(jobs.square, [2], done=done)
    assert threads.run(jobs.fail_on_three, [2], done=done).outcomes[0].cause == "ok"


def test_a_torn_line_costs_a_repeat_and_lines_after_it_are_whole(threads, tmp_path):
    done = tmp_path / "night.done"
    threads.run(jobs.square, range(3), done=done)
    text = done.read_text()
    done.write_text(text[: len(text) - 10])
    causes = [outcome.cause for outcome in threads.run(jobs.square, range(4), done=done).outcomes]
    assert sorted(causes) == ["done", "done", "ok", "ok"]
    assert {outcome.cause for outcome in threads.run(jobs.square, range(4), done=done).outcomes} == {"done"}


def test_a_file_of_something_else_is_refused(threads, tmp_path):
    other = tmp_path / "table.csv"
    other.write_text("a,b\n1,2\n3,4\n")
    with pytest.raises(UnreadableFileError, match="no file of inputs that were done"):
        threads.run(jobs.square, [1], done=other)
    assert other.read_text() == "a,b\n1,2\n3,4\n"
    with pytest.raises(UsageError, match="cannot be written"):
        threads.run(jobs.square, [1], done=tmp_path / "absent" / "night.done")


def test_inputs_of_other_types_run_every_time_and_a_caveat_says_so(threads, tmp_path):
    done = tmp_path / "night.done"
    for _ in range(2):
        batch = threads.run(str, [{1}, 2], done=done)
        assert batch.outcomes[0].cause == "ok"
        assert "1 inputs are neither paths nor plain data" in batch.caveats[0]


def test_keys_tell_values_apart_and_are_plain_text(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("a")
    values = [
        1,
        1.0,
        "1",
        (1,),
        [1],
        ["1"],
        {"1": 1},
        {1: 1},
        None,
        True,
        str(path),
        (str(path), 1),
        "\udcff",
    ]
    keys = [key_of(value) for value in values]
    assert len(set(keys)) == len(values)
    assert all(json.loads(key) is not ... for key in keys)
    assert key_of(path) == key_of(str(path))
    assert key_of(object()) is None
    assert key_of(float("nan")) is None


KILLED_AT_ANY_INSTANT = """
import sys
sys.path.insert(0, {here!r})
from pytest_membudget import FallbackExecutor

def note(number):
    with open({log!r}, "a") as log:
        log.write(f"{{number}} ")

if __name__ == "__main__":
    with FallbackExecutor(2, budget="1 GB", levels=("thread",)) as executor:
        executor.run(note, range(300), done={done!r})
"""


def test_a_kill_of_the_program_loses_nothing_that_was_noted(tmp_path):
    import subprocess
    import sys

    log, done, program = tmp_path / "log", tmp_path / "done", tmp_path / "program.py"
    program.write_text(KILLED_AT_ANY_INSTANT.format(here=str(tmp_path), log=str(log), done=str(done)))
    noted = []
    for lines in (20, 120, 200):
        child = subprocess.Popen([sys.executable, program])
        while child.poll() is None and (not done.exists() or done.read_bytes().count(b"\n") < lines):
            pass
        child.kill()
        child.wait()
        noted.append([json.loads(line)["key"] for line in done.read_text().splitlines()])
    assert subprocess.run([sys.executable, program], check=False).returncode == 0
    keys = [json.loads(line)["key"] for line in done.read_text().splitlines()]
    assert sorted(map(int, keys)) == list(range(300))
    assert all(keys[: len(before)] == before for before in noted)
    assert set(map(int, log.read_text().split())) == set(range(300))


@pytest.mark.parametrize("durations_s", [[1, 3, 2], lambda item: [1, 3, 2][item]])
def test_a_list_is_run_in_the_order_of_the_durations_that_the_caller_gives(durations_s):
    begun = []
    with FallbackExecutor(1, budget="60 MB", levels=("thread",)) as executor:
        executor.run(begun.append, [0, 1, 2], durations_s=durations_s)
    assert begun == [1, 2, 0]


@pytest.mark.parametrize(
    ("durations_s", "words"),
    [
        ([1], "durations_s has 1 for 3 inputs; give one for each"),
        ([1, 2, float("nan")], "durations_s gives nan for 2; give seconds of 0 or more"),
        (lambda _: "long", "durations_s gives 'long' for 0; give seconds of 0 or more"),
    ],
)
def test_durations_that_make_no_sense_are_refused_before_anything_runs(threads, durations_s, words):
    with pytest.raises(UsageError, match=words):
        threads.run(str, [0, 1, 2], durations_s=durations_s)
