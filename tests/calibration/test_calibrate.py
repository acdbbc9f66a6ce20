import os
import subprocess
import sys
import tempfile

import calibrated_functions as functions
import psutil
import pytest

from pytest_membudget import CalibrationError, UsageError, calibrate, synthesize
from pytest_membudget.calibration import run_executors
from pytest_membudget.calibration.worker import find_function, parse_reference, refer_to
from pytest_membudget.records.measurement import MemoryLimit, MemoryReading
from waiting import is_alive, wait_until

pytestmark = pytest.mark.processes
SIZES = ("50 kB", "100 kB", "200 kB")


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path, monkeypatch):
    """Runs in an empty folder and keeps temporary files in another; both are empty afterwards."""
    here, temporary = tmp_path / "here", tmp_path / "temporary"
    here.mkdir()
    temporary.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    yield
    assert list(here.iterdir()) == []
    assert list(temporary.iterdir()) == []


def short(fn, **options):
    return calibrate(fn, **{"sizes": SIZES, "repeats": 1, "progress": False, **options})


def test_a_function_is_calibrated_in_fresh_processes():
    found = short(functions.tenfold, kind="text", sizes=("1 MB", "2 MB", "4 MB"))
    assert found.gamma == pytest.approx(11, rel=0.15)
    assert found.bound("3 MB") >= found.expect("3 MB") >= 29_000_000
    assert any(each.startswith("it returned 42.0 MiB as pickled") for each in found.caveats)
    assert [point.size_bytes for point in sorted(found.points)] == [1_000_000, 2_000_000, 4_000_000]
    assert found.base_bytes > 0
    assert found.seconds_per_mb > 0
    assert found.file.function == "calibrated_functions:tenfold"
    assert found.file.environment.python.startswith("CPython 3")


def test_ones_own_files_are_used_as_they_are(tmp_path):
    files = [synthesize(tmp_path / f"{size}.csv", size).path for size in (50_000, 100_000, 150_000)]
    found = short(functions.tenfold, files=files)
    assert sorted(point.size_bytes for point in found.points) == [50_000, 100_000, 150_000]
    assert all(file.exists() for file in files)


@pytest.mark.parametrize("guard", ["", 'if __name__ == "__main__":\n    '])
def test_a_function_of_the_script_that_is_running_is_found(tmp_path, guard):
    script = tmp_path / "script.py"
    script.write_text(
        "import pytest_membudget\n\ndef read(path):\n    return open(path).read()\n\n"
        f"{guard}print(len(pytest_membudget.calibrate(read, sizes={SIZES!r}, repeats=1).points))\n"
    )
    done = subprocess.run([sys.executable, script], check=False, capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("3\n", 0), done.stderr


def test_a_function_that_fails_on_some_sizes_is_measured_as_far_as_it_went():
    with pytest.raises(
        CalibrationError, match=r"fails at 200 kB: ValueError: too many columns.*4 of 6"
    ) as info:
        short(functions.fails_above_100_kb, repeats=2)
    assert info.value.partial.max_size_bytes == 100_000


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (functions.fails_always, "fails on a small file already: KeyError: 'no such column'"),
        (functions.returns_at_once, "does not read its input"),
        (functions.is_killed, "its process was ended by SIGKILL"),
    ],
)
def test_a_function_that_cannot_be_calibrated_is_named(fn, message):
    with pytest.raises(CalibrationError, match=f"calibrated_functions:{fn.__name__}.*{message}"):
        short(fn)


def test_files_written_into_the_working_directory_are_said_and_removed():
    found = short(functions.writes_beside_itself)
    assert "it writes into its working directory (left-behind.txt)" in found.caveats[0]


def test_a_thread_that_the_function_leaves_running_holds_nobody_up(monkeypatch):
    monkeypatch.setattr(run_executors, "_ENDING_S", 0.1)
    assert len(short(functions.leaves_a_thread).points) == 3


def test_a_run_that_needs_more_than_there_is_is_ended(monkeypatch):
    little = MemoryReading(limit=MemoryLimit(400_000_000, "test"), available_bytes=400_000_000)
    monkeypatch.setattr(run_executors, "memory_reading", lambda: little)
    with pytest.raises(
        CalibrationError, match=r"its process held .* and was ended at .*: only 381 MiB were available"
    ):
        short(functions.takes_everything)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no guard")
def test_a_run_ends_with_the_process_that_started_it_however_that_ends(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import os, time, pytest_membudget\n\n"
        "def read(path):\n"
        f"    open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\n"
        "    time.sleep(600)\n\n"
        "pytest_membudget.calibrate(read)\n"
    )
    starter = subprocess.Popen([sys.executable, script], env={**os.environ, "TMPDIR": str(tmp_path)})
    try:
        wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
        run = psutil.Process(int((tmp_path / "pid").read_text()))
    finally:
        starter.kill()
        starter.wait()
    wait_until(lambda: not is_alive(run))


def test_a_time_budget_ends_the_run_that_is_going_on():
    with pytest.raises(CalibrationError, match=r"of 3 runs were measured in 4 s, and a fit needs 3"):
        short(functions.sleeps, budget_seconds=4.0)


def test_a_calibration_that_was_stopped_goes_on(tmp_path, monkeypatch):
    state, done = tmp_path / "state.json", []
    run_fresh = run_executors.run_fresh

    def interrupted(*arguments, **options):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(1)
        return run_fresh(*arguments, **options)

    monkeypatch.setattr(run_executors, "run_fresh", interrupted)
    with pytest.raises(KeyboardInterrupt):
        short(functions.tenfold, state=state)
    done.clear()
    with pytest.raises(UsageError, match="another function, sizes or seed"):
        short(functions.tenfold, state=state, seed=5)
    assert len(short(functions.tenfold, state=state).points) == 3
    assert len(done) == 1
    assert not state.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sizes": ("1 MB",)}, "no two different sizes"),
        ({"sizes": ("1 MB", "2 MB")}, "fewer than 3 runs"),
        ({"kind": "punch cards"}, "is not a kind"),
        ({"files": ["absent.csv"]}, "absent.csv"),
        ({"content": 1.0}, "content=1.0"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_runs(options, message, monkeypatch):
    monkeypatch.setattr(run_executors.subprocess, "Popen", None)
    with pytest.raises((UsageError, FileNotFoundError), match=message):
        short(functions.tenfold, **options)


def test_functions_without_a_name_to_find_them_by_are_refused():
    def nested(path): ...

    for fn in (lambda _path: None, nested):
        with pytest.raises(UsageError, match="lives inside another function"):
            refer_to(fn)
    with pytest.raises(UsageError, match="has no name"):
        refer_to(object())
    with pytest.raises(UsageError, match="MODULE:FUNCTION"):
        parse_reference("module.function")
    with pytest.raises(UsageError, match="has no function 'absent'"):
        find_function(parse_reference("calibrated_functions:absent"))
    with pytest.raises(
        CalibrationError, match="cannot be imported by a fresh interpreter: ModuleNotFoundError"
    ):
        short(parse_reference("no_such_module:read"))


def test_memory_that_the_call_before_has_left_free_is_no_doubt_about_a_warm_worker():
    found = calibrate(functions.scattered, sizes=("10 kB", "20 kB", "40 kB"), repeats=1, progress=False)
    assert not any("reused" in caveat for caveat in found.caveats)
