"""Whose are the files that appear in shared memory while a function is called?"""

import itertools
import os
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest

from pytest_membudget import check_growth
from pytest_membudget.measurement.growth import repeat, shared_files
from pytest_membudget.measurement.growth.shared_files import SharedFiles, origin_of_files

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/dev/shm is Linux's")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Stands for /dev/shm."""
    monkeypatch.setattr(SharedFiles, "folder", str(tmp_path))
    return tmp_path


@pytest.fixture
def scripted(folder, monkeypatch):
    """Calls and pauses that each make files when their number is due: `run(in_calls=…, in_pauses=…)`."""
    numbers = itertools.count()

    def run(*, in_calls, in_pauses):
        def make(is_due):
            if is_due:
                (folder / f"segment-{next(numbers)}").touch()
            if is_due > 1:
                (folder / f"segment-{next(numbers)}").touch()

        calls, pauses = itertools.count(), itertools.count()
        clock = SimpleNamespace(perf_counter=lambda: 0.0, sleep=lambda _: make(in_pauses(next(pauses))))
        monkeypatch.setattr(shared_files, "time", clock)
        repeated = SimpleNamespace(make_calls=lambda *_: make(in_calls(next(calls))))
        return origin_of_files(repeated, SharedFiles(), for_s=60)

    return run


def always(_):
    return True


def never(_):
    return False


def test_files_that_come_with_the_calls_alone_are_theirs(scripted):
    assert scripted(in_calls=always, in_pauses=never) == "calls"
    assert scripted(in_calls=lambda window: window % 2, in_pauses=never) == "calls"
    assert scripted(in_calls=lambda _: 2, in_pauses=always) == "calls"


def test_files_that_come_in_pauses_as_well_may_be_another_programs(scripted):
    assert scripted(in_calls=always, in_pauses=always) == "others"
    assert scripted(in_calls=lambda window: window % 2, in_pauses=lambda window: window % 3) == "others"
    assert scripted(in_calls=never, in_pauses=always) == "others"


def test_a_few_files_that_come_with_the_calls_alone_decide_nothing(scripted):
    assert scripted(in_calls=lambda window: window < 3, in_pauses=never) == "unknown"


@pytest.mark.parametrize(("between_s", "window_s"), [(0.0, 0.005), (0.03, 0.06), (9.0, 0.1)])
def test_windows_are_long_enough_for_two_files(folder, monkeypatch, between_s, window_s):
    asked, clock = [], itertools.count()
    monkeypatch.setattr(shared_files, "time", SimpleNamespace(perf_counter=lambda: next(clock), sleep=never))
    repeated = SimpleNamespace(make_calls=lambda _, for_s: asked.append(for_s))
    assert origin_of_files(repeated, SharedFiles(), 1.8, between_s) == "others"
    assert asked == pytest.approx([window_s] * len(asked))


@pytest.mark.kernel
@pytest.mark.processes
def test_a_file_is_known_by_what_has_it_open_or_mapped(folder, monkeypatch):
    for name in ("open", "mapped", "free"):
        (folder / name).write_bytes(bytes(4096))
    script = (
        f"import mmap, pathlib; kept = pathlib.Path({str(folder / 'open')!r}).open()\n"
        f"with pathlib.Path({str(folder / 'mapped')!r}).open('r+b') as file: pages = mmap.mmap(file.fileno(), 0)\n"
        "print(flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-S", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        holder.stdout.readline()
        files = SharedFiles()
        assert files.held_elsewhere({"open", "mapped", "free"}) == frozenset()  # it is a child of ours
        monkeypatch.setattr(shared_files, "descendants", list)
        assert files.held_elsewhere({"open", "mapped", "free"}) == {"open", "mapped"}
        holder.communicate(b"\n")


def touch(folder, name):
    """Not by a `Path`, which interns the name: CPython 3.12 keeps that for ever, a leak of the function's own."""
    os.close(os.open(f"{folder}/{name}", os.O_CREAT | os.O_WRONLY))


def test_segments_of_another_program_are_a_caveat_and_no_leak(folder):
    numbers, ended = itertools.count(), threading.Event()

    def another_program():
        while not ended.wait(0.0005):
            touch(folder, f"other-{next(numbers)}")

    thread = threading.Thread(target=another_program)
    thread.start()
    try:
        g = check_growth(lambda: ended.wait(0.001), timeout_s=3)
    finally:
        ended.set()
        thread.join()
    assert g.verdict != "leak"
    assert any("another program" in caveat for caveat in g.caveats)


def test_files_that_may_be_the_functions_own_leave_no_clean_verdict(folder, monkeypatch):
    monkeypatch.setattr(repeat, "origin_of_files", lambda *_: "unknown")
    numbers = itertools.count()
    g = check_growth(lambda: touch(folder, f"own-{next(numbers)}"), timeout_s=2)
    assert g.verdict == "inconclusive"
    assert any("too few to be certain" in caveat for caveat in g.caveats)
