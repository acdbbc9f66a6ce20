"""Is an input that was noted as done ever lost or run again, whenever the program is killed?

INPUTS numbers (10,000), of which one in twenty fails: it raises, is out of memory, returns what cannot be pickled, exceeds its limit or
its time, exits or kills its worker. The program is ended by SIGKILL at KILLS (50) random instants and then runs to its end. Every
start of a task is logged by the task itself. Failed inputs run again in each program, so the instants lie up to 18 s after the start.
"""

import collections
import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time

import pytest

INPUTS = int(os.environ.get("INPUTS", "10000"))
KILLS = int(os.environ.get("KILLS", "50"))

PROGRAM = """
    import json, os, signal, sys, time
    from pytest_membudget import ExecutorPolicy, FallbackExecutor

    log = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def fails(number):
        return number % 20 == 7

    def task(number):
        os.write(log, b"%d\\n" % number)
        time.sleep(0.02)
        if fails(number):
            kind = number % 1000
            if kind == 7:
                os.kill(os.getpid(), signal.SIGKILL)
            if kind == 107:
                os._exit(3)
            if kind == 207:
                raise MemoryError
            if kind == 307:
                return lambda: number
            if kind == 407:
                return len(bytearray(b"1") * 200_000_000)
            if number % 5000 == 507:
                time.sleep(60)
            raise ValueError(number)
        return number

    if __name__ == "__main__":
        policy = ExecutorPolicy(retries=0, limit="100 MB", timeout_s=5)
        with FallbackExecutor(2, budget="1 GB", policy=policy) as executor:
            batch = executor.run(task, range(int(sys.argv[1])), done="inputs.done")
        failed = [(each.item, each.cause, str(each.error)) for each in batch.outcomes if each.cause not in ("ok", "done")]
        print(json.dumps([len(batch.outcomes), failed]))
    """


@pytest.fixture
def start(tmp_path):
    """Starts the program; its N-th run logs into `started.N`."""
    (tmp_path / "program.py").write_text(textwrap.dedent(PROGRAM))

    def run(number):
        command = [sys.executable, "program.py", str(INPUTS), f"started.{number}"]
        return subprocess.Popen(
            command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    return run


def noted(folder):
    """The inputs in the file, and how often each."""
    lines = (folder / "inputs.done").read_text().splitlines() if (folder / "inputs.done").exists() else []
    return collections.Counter(json.loads(json.loads(line)["key"]) for line in lines if line.endswith("}"))


def started(folder, number):
    path = folder / f"started.{number}"
    return set(map(int, path.read_text().split())) if path.exists() else set()


@pytest.mark.timeout(1800)
def test_no_noted_input_is_lost_or_run_again(start, tmp_path, figure):
    source = random.Random(0)
    again, lost, kills_before_the_end = 0, 0, 0
    for number in range(KILLS):
        before = noted(tmp_path)
        program = start(number)
        time.sleep(source.uniform(0.3, 18))
        kills_before_the_end += program.poll() is None
        program.send_signal(signal.SIGKILL)
        program.wait(60)
        time.sleep(0.3)  # its workers end with it
        again += len(started(tmp_path, number) & set(before))
        lost += len(set(before) - set(noted(tmp_path)))
    before = noted(tmp_path)
    last = start(KILLS)
    outcomes, failed = json.loads(last.communicate(timeout=900)[0])
    again += len(started(tmp_path, KILLS) & set(before))
    found = noted(tmp_path)
    expected = {number for number in range(INPUTS) if number % 20 != 7}
    figure("killed while it ran", f"{kills_before_the_end} of {KILLS}")
    figure("inputs of noted ones run again", str(again), "none")
    figure("noted inputs lost", str(lost), "none")
    figure("noted at the end", f"{len(found)} of {len(expected)}", "all, once each")
    assert (again, lost) == (0, 0)
    assert [each for each in failed if each[0] in expected] == []
    assert set(found) == expected
    assert max(found.values()) == 1
    assert (outcomes, len(failed)) == (INPUTS, INPUTS - len(expected))
