import os
import subprocess
import sys
from pathlib import Path

import isolated_tasks
import pytest

from pytest_membudget.errors import MeasurementError
from pytest_membudget.measurement.fresh.memray_run import read_captures, recording

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(sys.platform == "win32", reason="memray has no Windows build"),
]


RECORD = """
import contextlib, sys
from pathlib import Path
from pytest_membudget.measurement.fresh.memray_run import emptied, recording
import isolated_tasks
fn, folder, *arguments = sys.argv[1:]
with recording(emptied(Path(folder))[0]), contextlib.suppress(KeyError):
    getattr(isolated_tasks, fn)(*map(int, arguments))
"""


def recorded(folder, fn, *arguments):
    """What a fresh interpreter recorded of a function of `isolated_tasks`."""
    environment = os.environ | {"PYTHONPATH": str(Path(isolated_tasks.__file__).parent)}
    words = [sys.executable, "-c", RECORD, fn, str(folder), *map(str, arguments)]
    subprocess.run(words, env=environment, check=True)
    return read_captures(folder / "capture.bin", folder / "flamegraph.html")


def test_the_line_that_took_the_memory_is_named(tmp_path):
    found = recorded(tmp_path, "allocate_in_a_helper", 30_000_000)
    assert found.sites[0].heap_bytes == pytest.approx(30_000_000, rel=0.05)
    assert found.sites[0].stack[0].startswith("build_a_block (isolated_tasks.py:")
    assert found.sites[0].stack[1].startswith("allocate_in_a_helper")
    assert found.heap_bytes >= found.sites[0].heap_bytes
    assert len(found.sites) <= 10
    assert "memory that was touched" in found.note
    assert (tmp_path / "flamegraph.html").stat().st_size > 10_000
    assert found.capture == str(tmp_path / "capture.bin")


def test_captures_of_an_earlier_run_are_not_taken_for_this_ones(tmp_path):
    recorded(tmp_path, "allocate_in_a_helper", 30_000_000)
    (tmp_path / "capture.bin").rename(tmp_path / "capture.bin.4711")  # as a forked child leaves it
    found = recorded(tmp_path, "allocate_in_a_helper", 2_000_000)
    assert found.heap_bytes < 20_000_000
    assert found.caveats == ()


@pytest.mark.slow
def test_a_function_that_raises_is_recorded_up_to_there(tmp_path):
    assert recorded(tmp_path, "raise_key_error").capture


def test_a_second_tracker_in_one_process_gives_its_reason(tmp_path):
    with recording(tmp_path / "one.bin") as first, recording(tmp_path / "two.bin") as second:
        pass
    assert first == ""
    assert "one tracker a process" in second


def test_what_is_no_capture_is_refused(tmp_path):
    with pytest.raises(MeasurementError, match="nothing was recorded"):
        read_captures(tmp_path / "none.bin")
    (tmp_path / "broken.bin").write_bytes(b"no capture at all")
    with pytest.raises(MeasurementError, match="memray cannot read"):
        read_captures(tmp_path / "broken.bin")
