import subprocess
import sys
from pathlib import Path

import pytest

from pytest_membudget.errors import MeasurementError
from pytest_membudget.measurement.fresh.memray_run import read_stacks
from pytest_membudget.measurement.fresh.stack_recorder import FOLDER, folder_of

pytest.importorskip("memray")
pytestmark = pytest.mark.processes

SCRIPT = """
import os, sys
from pathlib import Path
from pytest_membudget.measurement.fresh import stack_recorder

def rows():
    return [str(n) for n in range(20_000)]

def forked():
    pid = os.fork()
    if not pid:
        block = bytearray(b"x" * 5_000_000)
        os._exit(0)
    os.waitpid(pid, 0)

with stack_recorder.recording_test("the test"):
    kept = rows()
    forked()
"""


@pytest.fixture(scope="module")
def stacks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recorded")
    (folder / "script.py").write_text(SCRIPT)
    subprocess.run(
        [sys.executable, folder / "script.py"], env={FOLDER: str(folder), "PATH": "/usr/bin:/bin"}, check=True
    )
    return read_stacks(folder_of(folder, "the test"))


def held_by(stacks, function):
    return [stack for stack in stacks if function in [name for name, _, _ in stack.frames]]


def test_small_objects_are_named_by_the_function_that_made_them(stacks):
    found = held_by(stacks, "rows")
    assert sum(stack.size_bytes for stack in found) == pytest.approx(20_000 * 62, rel=0.25)
    assert {stack.process for stack in found} == {""}


def test_a_fork_that_ends_at_once_has_a_recording_of_its_own(stacks):
    (largest, *_) = sorted(held_by(stacks, "forked"), key=lambda stack: -stack.size_bytes)
    assert largest.size_bytes >= 5_000_000
    assert largest.process.endswith("script.py")


def test_a_child_that_was_killed_is_left_out_and_nothing_at_all_is_a_sentence(tmp_path):
    with pytest.raises(MeasurementError, match="nothing was recorded"):
        read_stacks(tmp_path)
    (tmp_path / "main.bin").write_bytes(b"torn")
    with pytest.raises(MeasurementError, match="memray cannot read"):
        read_stacks(tmp_path)
    Path(tmp_path / "main.bin").rename(tmp_path / "child-1.bin")
    assert read_stacks(tmp_path) == ()
