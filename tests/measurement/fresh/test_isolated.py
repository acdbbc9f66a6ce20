import importlib.util
import subprocess
import sys
import textwrap
import types

import isolated_tasks
import pytest
from tree_programs import MIB

from pytest_membudget import measure_isolated
from pytest_membudget.errors import IsolatedCrashError, MeasurementError, UsageError
from pytest_membudget.measurement.fresh import isolated

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.processes,
    pytest.mark.skipif(sys.platform == "win32", reason="needs fork and exec"),
]


def test_a_function_is_measured_in_a_fresh_interpreter():
    m = measure_isolated(isolated_tasks.take, 80 * MIB)
    assert m.peak_bytes == pytest.approx(80 * MIB, abs=MIB)
    assert m.value == 80 * MIB
    assert m.start_bytes < 60 * MIB
    assert (m.label, m.source, m.processes) == ("take", "kernel", 1)


def test_its_output_passes_through(capfd):
    measure_isolated(isolated_tasks.say, "hello")
    assert capfd.readouterr().out == "hello\n"


def test_its_exception_propagates_with_the_traceback_of_the_other_side():
    with pytest.raises(KeyError, match="no such thing") as raised:
        measure_isolated(isolated_tasks.raise_key_error)
    assert "raise_key_error" in raised.value.__notes__[0]


def test_an_exception_that_cannot_travel_is_named():
    with pytest.raises(MeasurementError, match=r"PickyError\(1\)"):
        measure_isolated(isolated_tasks.raise_picky)


def test_a_result_that_cannot_travel_is_left_behind():
    m = measure_isolated(isolated_tasks.unpicklable)
    assert m.value is None
    assert "cannot travel" in m.caveats[0]


@pytest.mark.parametrize(
    ("task", "ending"),
    [
        ("kill_myself", r"kill_myself was ended by SIGKILL \(signal 9\); the system may have run out"),
        ("leave", "exit code 3"),
        ("fork_and_die", r"SIGSEGV \(signal 11\)"),
    ],
)
def test_a_crash_is_named(task, ending):
    with pytest.raises(IsolatedCrashError, match=ending):
        measure_isolated(getattr(isolated_tasks, task))
    subprocess.run(["true"], check=True)


@pytest.mark.timeout(40)  # copied anew with each part that came, it took 80 s and more
def test_a_large_result_comes_back():
    m = measure_isolated(isolated_tasks.build_a_block, 100_000_000)
    assert m.value == b"x" * 100_000_000


def test_a_thread_that_the_function_leaves_running_holds_nobody_up(monkeypatch):
    monkeypatch.setattr(isolated, "ENDING_S", 0.1)
    found = measure_isolated(isolated_tasks.leave_a_thread)
    assert found.value == "done"
    assert "a thread that the function left running" in found.caveats[-1]


def test_a_result_that_breaks_off_is_a_crash():
    with pytest.raises(IsolatedCrashError, match=r"ended by SIGKILL"):
        measure_isolated(isolated_tasks.break_off)


def test_what_cannot_be_sent_is_a_usage_error():
    with pytest.raises(UsageError, match="function at the top of a module"):
        measure_isolated(lambda: None)


def test_a_function_of_a_module_that_no_path_leads_to(tmp_path, monkeypatch):
    path = tmp_path / "test_it.py"
    path.write_text("def job(number): return number, __name__\n")
    spec = importlib.util.spec_from_file_location("tests.test_it", path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "tests", types.ModuleType("tests"))
    monkeypatch.setitem(sys.modules, "tests.test_it", module)
    spec.loader.exec_module(module)
    assert measure_isolated(module.job, 7).value == (7, "tests.test_it")


def test_a_function_of_the_script_being_run(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            """
            from pytest_membudget import measure_isolated
            def work(): return len(b"x" * 30_000_000)
            if __name__ == "__main__":
                m = measure_isolated(work)
                print(m.value, m.peak_bytes > 29_000_000)
            """
        )
    )
    assert subprocess.check_output([sys.executable, script], text=True) == "30000000 True\n"


@pytest.mark.parametrize(
    ("fn", "last_line"),
    [("abs, -3", "3"), ("work, 3", 'put the script\'s work under: if __name__ == "__main__":')],
)
def test_a_script_without_a_guard_may_measure_what_is_elsewhere(tmp_path, fn, last_line):
    script = tmp_path / "script.py"
    script.write_text(
        "from pytest_membudget import measure_isolated\n"
        "def work(number): return number\n"
        f"print(measure_isolated({fn}).value)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert (done.stdout + done.stderr).rstrip().endswith(last_line)
    assert "raised in the fresh interpreter" not in done.stderr


def test_a_function_that_is_in_no_file_travels_by_value():
    program = (
        "from pytest_membudget import measure_isolated\n"
        "class Found: number = 7\n"
        "def work(): return Found()\n"
        "print(measure_isolated(work).value.number)\n"
    )
    assert subprocess.check_output([sys.executable, "-c", program], text=True) == "7\n"


def test_a_working_directory_that_is_gone_is_named(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(MeasurementError, match="working directory, which is gone"):
        measure_isolated(abs, -3)
