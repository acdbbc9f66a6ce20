import gc
import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from tree_programs import HOLD, MIB

from pytest_membudget import measure_command
from pytest_membudget.cli import main
from pytest_membudget.errors import MeasurementError, UsageError
from pytest_membudget.measurement.fresh import command, launcher
from pytest_membudget.measurement.process.proc import open_files
from pytest_membudget.measurement.tree.helper.messages import Summary
from pytest_membudget.records.measurement import Ending

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.processes,
    pytest.mark.skipif(sys.platform != "linux", reason="commands are measured through /proc"),
]
TAKE = "block = b'x' * int(__import__('sys').argv[1])"
TWO = """
import subprocess, sys
ours = [subprocess.Popen([sys.executable, "-I", "-S", "-c", *sys.argv[1:]], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(2)]
for each in ours:
    each.stdout.readline()
import time; time.sleep(0.3)
for each in ours:
    each.communicate(b"\\n")
"""


def python(code, *words):
    return [sys.executable, "-I", "-S", "-c", code, *map(str, words)]


def test_one_process_is_exact():
    m = measure_command(python(TAKE, 80 * MIB))
    assert m.peak_bytes == m.peak_upper_bytes == pytest.approx(88 * MIB, abs=3 * MIB)
    assert (m.exit_code, m.processes, m.source) == (0, 1, "kernel")


@pytest.mark.parametrize(
    ("largest_mib", "peak_mib", "upper_mib", "source"), [(12, 2, 7, "sampled"), (80, 80, 80, "kernel")]
)
def test_a_small_command_is_bounded_by_what_its_tree_held(largest_mib, peak_mib, upper_mib, source):
    """`ru_maxrss` of a command is never less than what its guard held, 12 MiB here."""
    seen = [(1, 12 * MIB), (2, 2 * MIB)]
    summary = Summary(1 * MIB, 1 * MIB, 0, 12 * MIB, 0, seen, start_file_bytes=6 * MIB)
    launched = SimpleNamespace(largest_bytes=largest_mib * MIB, floor_bytes=12 * MIB, root=1)
    m = command._combine(("sleep",), Ending(how="exited"), summary, launched, lost="")
    assert (m.peak_bytes, m.peak_upper_bytes) == (peak_mib * MIB, upper_mib * MIB)
    assert (m.source, m.processes) == (source, 1)
    assert ["below the 12.0 MiB" in caveat for caveat in m.caveats] == [True] * (source == "sampled")


def test_a_tree_is_counted_together():
    m = measure_command(python(TWO, HOLD, 60 * MIB))
    # Of files that programs outside the tree map too, only a share is proven.
    assert m.peak_bytes == pytest.approx(134 * MIB, abs=6 * MIB)
    assert 130 * MIB < m.peak_upper_bytes < 180 * MIB
    assert m.processes == 3


def test_a_large_caller_is_not_taken_for_the_command():
    block = b"x" * (200 * MIB)
    m = measure_command(["true"])
    del block
    # The guard's own mark shows, which is larger under newer versions of Python.
    assert m.peak_upper_bytes < 14 * MIB


def test_a_command_that_takes_too_long_is_ended_with_all_it_started():
    m = measure_command(["sh", "-c", "sleep 611 & sleep 611"], timeout_s=0.3)
    assert m.timed_out
    assert m.exit_code == 128 + signal.SIGKILL
    assert "sleep 611" not in subprocess.check_output(["ps", "-eo", "args"], text=True)


def test_a_launcher_that_cannot_start_leaves_no_descriptor_behind(monkeypatch):
    def refuse(*words, **options):
        raise OSError(11, "no more processes")

    monkeypatch.setattr(launcher.subprocess, "Popen", refuse)
    gc.collect()  # closes what tests before have left
    before = open_files()
    with pytest.raises(MeasurementError, match="no more processes"):
        measure_command(["true"])
    assert open_files().items() <= before.items()


def test_nothing_to_measure_is_a_usage_error():
    with pytest.raises(UsageError, match='after "--"'):
        measure_command([])


@pytest.mark.parametrize("timeout_s", [0, -5, float("nan"), float("inf"), 1e300])
def test_a_time_limit_that_is_none_is_a_usage_error(timeout_s):
    with pytest.raises(UsageError, match="time limit"):
        measure_command(["true"], timeout_s=timeout_s)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--", "true"], 0),
        (["--", "sh", "-c", "exit 7"], 7),
        (["--", "sh", "-c", "kill -TERM $$"], 128 + signal.SIGTERM),
        (["--", "no-such-command-here"], 127),
        (["--", "/dev/null"], 126),
        ([], 2),
        (["--", ""], 2),
        (["--timeout", "inf", "--", "true"], 2),
        (["--timeout", "-5", "--", "true"], 2),
        (["--timeout", "nan", "--", "true"], 2),
        (["--budget", "20MB", "--", *python(TAKE, 40_000_000)], 1),
        (["--budget", "20MB", "--", *python(TAKE + "; raise SystemExit(5)", 40_000_000)], 5),
        (["--budget", "90MB", "--", *python(TAKE, 40_000_000)], 0),
    ],
)
def test_exit_codes(words, code):
    assert main(["measure", *words]) == code


def test_a_bad_budget_is_a_usage_error(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["measure", "--budget", "20", "--", "true"])
    assert stopped.value.code == 2
    assert "has no unit" in capsys.readouterr().err


def test_standard_output_belongs_to_the_command(capfd):
    main(["measure", "--json", "--", "echo", "hello"])
    out, err = capfd.readouterr()
    assert out == "hello\n"
    assert json.loads(err)["exit_code"] == 0


def test_a_command_that_is_not_utf_8_is_recorded(capfd):
    assert main(["measure", "--json", "--", "true", "\udcff"]) == 0
    assert json.loads(capfd.readouterr().err)["command"] == ["true", "\\udcff"]


def test_several_runs_are_shown_together(capfd):
    main(["measure", "--runs", "2", "--budget", "1GB", "--", *python(TAKE, 20_000_000)])
    err = capfd.readouterr().err
    assert "2 runs: " in err
    assert "within its budget of 954 MiB" in err


def test_ctrl_c_leaves_nothing_behind():
    code = "import sys; from pytest_membudget.cli import main; sys.exit(main(sys.argv[1:]))"
    stubborn = "trap '' INT; echo started; sleep 613"
    words = [sys.executable, "-c", code, "measure", "--", "sh", "-c", stubborn]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, process_group=0, env={**os.environ})
    assert process.stdout.readline() == b"started\n"
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=60) == 130
    process.stdout.close()
    deadline = time.monotonic() + 30
    while "sleep 613" in subprocess.check_output(["ps", "-eo", "args"], text=True):
        assert time.monotonic() < deadline
