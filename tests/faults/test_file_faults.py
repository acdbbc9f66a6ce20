"""Writers that are killed at any instant, or that meet a full disk: each file is the old one or the new one.

A writer is a fork of this process, so that a fault costs milliseconds. It says through a pipe which of its writes have
returned; those must be found. A full disk is a limit on the size of files, which fails a write at the same byte each time.
"""

import json
import os
import signal
import sys
import time

import pytest

from pytest_membudget.gate.baseline import load_baseline, save_baseline
from pytest_membudget.gate.history import open_history
from pytest_membudget.records import json_lines
from pytest_membudget.records.report import Report, TestRecord
from pytest_membudget.records.run import Outcome
from pytest_membudget.report.writing import load_report, write_report
from pytest_membudget.runtime.executor import dead_letters

pytestmark = [
    pytest.mark.slow,
    pytest.mark.processes,
    pytest.mark.timeout(600),
    pytest.mark.skipif(sys.platform != "linux", reason="forks, kills and limits as Linux has them"),
]

FAULTS = 150


def record(number, size=200):
    return TestRecord(nodeid=f"test_{number}", outcome="passed", peak_bytes=number, message="x" * size)


def report(number):
    return Report(
        tests=tuple(record(number) for _ in range(1)), created=f"2026-01-01T00:00:{number % 60:02}+00:00"
    )


def letter(number):
    return dead_letters.letter_of(
        load_report, Outcome(item=number, error=ValueError("x" * 2000), cause="error")
    )


def add_run(path, number):
    with open_history(path, create=True) as history:
        history.add(report(number), f"revision {number}")


def revisions(path):
    with open_history(path) as history:
        return {int(run.revision.split()[1]) for run in history.runs()}


WRITERS = {
    # name: (write number N, numbers that the file holds, whether it keeps all of them or the last one alone)
    "report": (
        lambda path, n: write_report(report(n), path),
        lambda path: {load_report(path).tests[0].peak_bytes},
        False,
    ),
    "baseline": (
        lambda path, n: save_baseline(Report(kind="baseline", tests=(record(n, 0),)), path),
        lambda path: {int(load_baseline(path).tests[0].nodeid[5:])},
        False,
    ),
    "dead letters": (
        lambda path, n: dead_letters.append(path, letter(n)),
        lambda path: {each.item for each in dead_letters.read(path)},
        True,
    ),
    "journal": (
        lambda path, n: json_lines.add_records(path, [record(n)]),
        lambda path: {each.peak_bytes for each in json_lines.read_records(path, TestRecord).records},
        True,
    ),
    "history": (add_run, revisions, True),
}


class Writer:
    """A fork that writes numbers until it is ended, or until `most_bytes` is as large as a file may get."""

    def __init__(self, write, path, first, most_bytes=None):
        self._reading, writing = os.pipe()
        self.pid = os.fork()
        if self.pid:
            os.close(writing)
            return
        try:
            os.close(self._reading)
            if most_bytes is not None:
                import resource

                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
            for number in range(first, first + 10_000):
                write(path, number)
                os.write(writing, b"%d\n" % number)
        except Exception:
            os._exit(3)
        finally:
            os._exit(0)

    def done(self):
        """Ends it; the numbers whose writes had returned."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        with os.fdopen(self._reading, "rb") as stream:
            return [int(line) for line in stream.read().splitlines(keepends=True) if line.endswith(b"\n")]


@pytest.mark.parametrize("name", WRITERS)
def test_a_writer_that_is_killed_loses_nothing_that_it_had_written(tmp_path, chance, name):
    write, numbers_in, keeps_all = WRITERS[name]
    path = tmp_path / f"file.{'sqlite' if name == 'history' else 'json'}"
    written = set()
    for fault in range(FAULTS):
        writer = Writer(write, path, fault * 10_000)
        time.sleep(chance.random() * 0.02)
        acknowledged = writer.done()
        written = written | set(acknowledged) if keeps_all else set(acknowledged[-1:]) or written
        if not written:
            continue  # nothing that could be lost
        found = numbers_in(path)
        unacknowledged = found - written
        assert len(unacknowledged) <= fault + 1
        assert written <= found or (not keeps_all and len(found) == 1 and min(found) > max(written))
        if not keeps_all:
            written = found
    assert written
    # A kill in the instant between a file's two names leaves one, for an hour.
    for part in tmp_path.glob(".*.part"):
        os.utime(part, (1, 1))
    write(path, FAULTS * 10_000)
    assert list(tmp_path.glob(".*.part")) == []


@pytest.mark.parametrize("name", WRITERS)
def test_a_disk_that_is_full_leaves_what_was_there(tmp_path, chance, name):
    write, numbers_in, keeps_all = WRITERS[name]
    path = tmp_path / f"file.{'sqlite' if name == 'history' else 'json'}"
    write(path, 0)
    before = numbers_in(path)
    for fault in range(FAULTS):
        size = path.stat().st_size
        writer = Writer(write, path, 1 + fault * 10_000, most_bytes=chance.randrange(1, max(2, size)))
        time.sleep(0.005)
        acknowledged = writer.done()
        found = numbers_in(path)
        assert (
            before <= found
            if keeps_all
            else found in ({acknowledged[-1]} if acknowledged else before, before)
        )
        before = found
    assert [each for each in os.listdir(tmp_path) if each.endswith(".part")] == []


def test_figures_of_two_sessions_that_end_at_once_are_one_or_the_other(tmp_path):
    path = tmp_path / "report.json"
    writers = [Writer(lambda place, n: write_report(report(n), place), path, first) for first in (0, 10_000)]
    seen = set()
    deadline_s = time.monotonic() + 2
    while time.monotonic() < deadline_s:
        if path.exists():
            seen.add(json.loads(path.read_text())["tests"][0]["peak_bytes"] >= 10_000)
    assert all(writer.done() for writer in writers)
    assert seen == {False, True}
