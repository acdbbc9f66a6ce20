"""`check_growth` on real functions. The verdicts are exact for them; how long it takes is not asserted."""

import ctypes
import gc
import itertools
import mmap
import os
import re
import signal
import sqlite3
import threading
import time
import warnings
from types import SimpleNamespace

import pytest

from pytest_membudget.errors import UsageError
from pytest_membudget.measurement.growth import culprits, repeat
from pytest_membudget.measurement.growth.check import check_growth
from pytest_membudget.measurement.growth.judge import Caps
from pytest_membudget.measurement.growth.samples import Figures
from pytest_membudget.records.storage import from_here
from pytest_membudget.stats.growth import trend

pytestmark = pytest.mark.kernel
HERE = from_here(__file__)

LIBC = ctypes.CDLL(None)
LIBC.malloc.restype = ctypes.c_void_p
LIBC.malloc.argtypes = [ctypes.c_size_t]


@pytest.fixture(autouse=True)
def _culprits_are_sought_until_they_are_found(monkeypatch):
    """On a loaded machine the search takes longer than a user would wait for it."""
    monkeypatch.setattr(culprits, "_IN_ALL_S", 8.0)


def test_eight_bytes_a_call_are_a_leak():
    kept = []
    growth = check_growth(lambda: kept.append(None))
    assert growth.verdict == "leak"
    assert 6 < growth.bytes_per_call < 12
    assert growth.low_bytes_per_call <= growth.bytes_per_call <= growth.high_bytes_per_call


def test_the_line_and_the_type_that_grow_are_named():
    kept = []
    growth = check_growth(lambda: kept.append([None] * 100))
    assert growth.culprits[0].bytes_per_call == pytest.approx(856, rel=0.1)
    assert {"site", "type"} == {culprit.kind for culprit in growth.culprits}
    assert any(culprit.name == "list" for culprit in growth.culprits)
    assert any(culprit.kind == "site" and HERE in culprit.name for culprit in growth.culprits)
    assert not any("_pytest" in culprit.name for culprit in growth.culprits)


def test_what_pytest_allocates_between_two_calls_is_no_culprit_and_within_one_it_is_named_by_the_users_line():
    runner, repeats = (
        ("/site-packages/_pytest/logging.py", 410),
        (f"{culprits._CALLERS[1]}/running_test.py", 1),
    )
    assert not culprits._shown([runner, runner, repeats])
    assert culprits._shown([runner, (__file__, 7), repeats]) == f"{HERE}:7 (in _pytest/logging.py:410)"


def test_small_objects_are_not_called_native():
    kept = []
    growth = check_growth(lambda: kept.append(object()))
    assert not any("native" in culprit.name for culprit in growth.culprits)
    assert growth.culprits[0].name.startswith(HERE)


def test_what_a_library_allocates_is_named_by_the_users_line(tmp_path):
    kept, file = [], tmp_path / "a.csv"
    file.write_bytes(b"x" * 1000)
    first = check_growth(lambda: kept.append(file.read_bytes())).culprits[0].name
    assert first.startswith(HERE)
    assert re.search(r"\(in (pathlib|_local|pathlib/\w+)\.py:\d+\)", first)


def test_a_growing_list_is_named_once_it_is_moved():
    kept = [None] * 1000
    growth = check_growth(lambda: kept.extend([None] * 200))
    assert growth.verdict == "leak"
    assert any(culprit.kind == "site" and HERE in culprit.name for culprit in growth.culprits)


def test_a_leak_within_the_allowance_is_clean():
    kept = []
    assert check_growth(lambda: kept.append(bytes(100)), "1 KiB").verdict == "clean"


def test_native_memory_that_is_not_freed_is_a_leak():
    growth = check_growth(lambda: LIBC.malloc(40))
    assert growth.verdict == "leak"
    assert 40 <= growth.bytes_per_call <= 56
    assert "native" in growth.culprits[0].name


def test_a_leak_of_a_compiled_library_names_the_line_that_called_it():
    database = sqlite3.connect(":memory:")
    database.execute("create table seen (content blob)")
    growth = check_growth(lambda: database.execute("insert into seen values (zeroblob(1000))"))
    assert growth.verdict == "leak"
    assert growth.culprits[0].name.startswith(f"native code called by {HERE}:")


def test_held_mappings_are_a_leak():
    held = []
    growth = check_growth(lambda: held.append(mmap.mmap(-1, 4096)))
    assert growth.verdict == "leak"
    assert growth.bytes_per_call >= 4096


def test_cyclic_garbage_is_clean():
    def fn():
        cycle = []
        cycle.append(cycle)

    growth = check_growth(fn)
    assert (growth.verdict, growth.culprits, growth.resources) == ("clean", (), ())


def test_a_bounded_cache_is_clean():
    cache, numbers = {}, itertools.count()

    def fn():
        cache[next(numbers) % 1000] = bytes(100)

    assert check_growth(fn).verdict == "clean"


def test_descriptors_that_pile_up_are_named():
    opened = []
    try:
        growth = check_growth(lambda: opened.append(os.open(os.devnull, os.O_RDONLY)))
    finally:
        for descriptor in opened:
            os.close(descriptor)
    assert growth.verdict == "leak"
    resource = next(it for it in growth.resources if it.kind == "descriptors")
    assert resource.per_call == pytest.approx(1.0)
    assert resource.examples[0].startswith(os.devnull)


def test_threads_that_pile_up_are_named():
    done = threading.Event()
    try:
        growth = check_growth(lambda: threading.Thread(target=done.wait, name="waiting", daemon=True).start())
    finally:
        done.set()
    assert growth.verdict == "leak"
    assert any(it.kind == "threads" and it.examples[0].startswith("waiting") for it in growth.resources)


def test_the_functions_own_exception_propagates_and_leaves_nothing_behind():
    frozen = gc.get_freeze_count()
    handler = signal.getsignal(signal.SIGALRM)

    def fn():
        raise ZeroDivisionError("its own")

    with pytest.raises(ZeroDivisionError, match="its own"):
        check_growth(fn)
    assert gc.get_freeze_count() == frozen
    assert signal.getsignal(signal.SIGALRM) is handler


def test_a_call_that_hangs_is_interrupted_and_inconclusive():
    growth = check_growth(lambda: time.sleep(3600), timeout_s=0.2)
    assert (growth.verdict, growth.calls) == ("inconclusive", 0)
    assert any("interrupted" in caveat for caveat in growth.caveats)


def test_what_the_first_call_takes_longer_does_not_count_in_the_time_limit(monkeypatch):
    now_s, durations_s = 0.0, itertools.chain([9.0], itertools.repeat(0.1))

    def call():
        nonlocal now_s
        now_s += next(durations_s)

    monkeypatch.setattr(repeat, "time", SimpleNamespace(perf_counter=lambda: now_s))
    nothing = Figures(*[0] * len(Figures._fields))
    rounds = repeat.Rounds(call, SimpleNamespace(read=lambda: nothing, read_settled=lambda _: nothing), 10.0)
    with pytest.raises(repeat.CallsEnded):
        while True:
            rounds.advance(1000)
    assert rounds.calls == pytest.approx(100, abs=2)


def test_an_alarm_that_was_set_before_is_still_set_afterwards():
    signal.setitimer(signal.ITIMER_REAL, 3600)
    try:
        check_growth(lambda: None)
        left_s, _ = signal.getitimer(signal.ITIMER_REAL)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    assert 3000 < left_s < 3600


@pytest.mark.processes
def test_a_child_that_comes_back_from_the_function_ends_there(capfd):
    def fn():
        child = os.fork()
        if child:
            os.waitpid(child, 0)

    here = os.getpid()
    growth = check_growth(fn, timeout_s=1.0)
    assert os.getpid() == here
    assert growth.verdict in {"clean", "inconclusive"}
    assert "child ends here" in capfd.readouterr().err


def test_setup_and_teardown_run_around_every_call():
    steps = []

    def fn():
        steps.append("call")
        if len(steps) > 30:
            raise StopIteration

    with pytest.raises(StopIteration):
        check_growth(fn, setup=lambda: steps.append("setup"), teardown=lambda: steps.append("teardown"))
    assert steps[:4] == ["setup", "call", "teardown", "setup"]
    assert steps[-1] == "teardown"


def test_warnings_that_somebody_keeps_are_no_growth_of_the_calls():
    before = warnings.showwarning
    with warnings.catch_warnings(record=True) as kept:
        warnings.simplefilter("always")
        growth = check_growth(lambda: warnings.warn("once more", stacklevel=1))
    assert growth.verdict == "clean"
    assert len(kept) == 1
    assert warnings.showwarning is before


@pytest.mark.parametrize("timeout_s", [0, -1, float("nan"), float("inf")])
def test_a_time_limit_is_needed(timeout_s):
    with pytest.raises(UsageError, match="timeout_s"):
        check_growth(lambda: None, timeout_s=timeout_s)


def test_an_allowance_needs_its_unit():
    with pytest.raises(ValueError, match=r"per_call.*no unit"):
        check_growth(lambda: None, "64")


def test_what_other_threads_print_meanwhile_is_not_lost(capfd):
    stop = threading.Event()
    printed = []

    def chatter():
        while not stop.is_set():
            line = f"line {len(printed)}\n"
            printed.append(line)
            os.write(2, line.encode())
            time.sleep(0.0005)

    thread = threading.Thread(target=chatter)
    thread.start()
    try:
        check_growth(lambda: None, timeout_s=0.5)
    finally:
        stop.set()
        thread.join()
    seen = capfd.readouterr().err
    assert "arenas" not in seen
    assert set(seen.splitlines(keepends=True)) == set(printed)


def test_on_the_way_to_a_cap_there_are_samples_enough_for_a_verdict():
    first = Figures(*[0] * len(Figures._fields))
    caps = Caps(Figures(*[512 << 20] * len(Figures._fields)))
    calls, at_calls = 0, []
    while not caps.reached(first, first._replace(heap_bytes=1000 * calls), calls):
        # However dear a sample is: half as many calls as went before, at most.
        calls += min(
            max(1, calls // 2), caps.next_calls(first, first._replace(heap_bytes=1000 * calls), calls)
        )
        at_calls.append(calls)
    assert 1000 * calls < 1.1 * (512 << 20)
    assert trend(at_calls, [1000 * n for n in at_calls]).direction == "growing"
