"""A baseline while it is written: the old file or the new one, never half."""

import random
import subprocess
import sys
import threading
import time

import pytest

from pytest_membudget.gate.baseline import load_baseline, update_baseline
from pytest_membudget.records.report import Report, TestRecord

MIB = 2**20

SAVER = """
import sys
from pytest_membudget.gate.baseline import save_baseline
from pytest_membudget.records.report import Report, TestRecord

def baseline(peak):
    tests = tuple(TestRecord(nodeid=f"t.py::test_{n:05}", outcome="passed", peak_bytes=peak) for n in range(1000))
    return Report(kind="baseline", tests=tests)

old, new = baseline(1), baseline(2)
save_baseline(old, sys.argv[1])
print("ready", flush=True)
while True:
    save_baseline(new, sys.argv[1])
    save_baseline(old, sys.argv[1])
"""


@pytest.mark.processes
def test_a_kill_while_saving_leaves_one_whole_baseline(tmp_path):
    path = tmp_path / "baseline.json"
    for seed in range(3):
        saver = subprocess.Popen([sys.executable, "-c", SAVER, str(path)], stdout=subprocess.PIPE)
        try:
            assert saver.stdout.readline() == b"ready\n"
            time.sleep(random.Random(seed).uniform(0, 0.05))  # any instant will do
        finally:
            saver.kill()
            saver.wait()
            saver.stdout.close()
        found = load_baseline(path)
        assert len(found.tests) == 1000
        assert {record.peak_bytes for record in found.tests} in ({1}, {2})


def test_updates_of_several_sessions_at_once_keep_the_tests_of_each(tmp_path):
    path = tmp_path / "b.json"
    barrier = threading.Barrier(8)

    def update(number):
        record = TestRecord(nodeid=f"test_{number}.py::test", outcome="passed", peak_bytes=number * MIB)
        barrier.wait()
        update_baseline(path, Report(tests=(record,)), is_gone=lambda _: False)

    threads = [threading.Thread(target=update, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [test.nodeid for test in load_baseline(path).tests] == [
        f"test_{number}.py::test" for number in range(8)
    ]
