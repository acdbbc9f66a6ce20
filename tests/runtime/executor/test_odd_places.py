"""Workers that cannot find what they need, and programs that take away what workers stand on: an answer in any case, never a wait."""

import os
import pickle
import subprocess
import sys
import textwrap
import types
import zipapp

import executor_jobs as jobs
import pytest
from scripted import without_pressure

from pytest_membudget import FallbackExecutor, MemoryEstimator, UnpicklableError
from pytest_membudget.runtime.executor.charges import Charged, FileCharge
from pytest_membudget.runtime.executor.engine import CallOptions
from pytest_membudget.runtime.executor.scheduler import Scheduler
from pytest_membudget.runtime.workers import process as process_worker

pytestmark = [pytest.mark.processes, pytest.mark.timeout(90)]


def output_of(tmp_path, code, first_line=""):
    """What a program prints that has nothing of ours loaded before."""
    path = tmp_path / "program.py"
    path.write_text(f"{first_line}\n{textwrap.dedent(code)}")
    done = subprocess.run(
        [sys.executable, path], capture_output=True, text=True, timeout=80, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines(), without_pressure(done.stderr)


@pytest.mark.parametrize(
    "loaded_before",
    [
        "concurrent.futures, pytest_membudget",
        "multiprocessing.process",
        "pytest_membudget.runtime.executor.executor",
    ],
)
def test_modules_may_be_forgotten_and_loaded_anew(tmp_path, loaded_before):
    # pytest's own pytester does that with each project that it runs, and all of them may have a module test_it.
    lines, errors = output_of(
        tmp_path,
        """
        import importlib, pathlib, sys

        MODULE = "def job(item):\\n    return {number}, item\\n"
        if __name__ == "__main__":
            for number in range(3):
                before = dict(sys.modules)
                folder = pathlib.Path(f"project-{number}")
                folder.mkdir()
                (folder / "test_it.py").write_text(MODULE.format(number=number))
                sys.path.insert(0, str(folder.absolute()))
                importlib.invalidate_caches()
                import test_it
                from pytest_membudget import FallbackExecutor
                with FallbackExecutor(2, budget="1 GB") as executor:
                    batch = executor.run(test_it.job, range(5))
                events = [event for event in batch.events if event.kind != "pressure"]
                print(batch.values == [(number, item) for item in range(5)], executor.level, events)
                sys.modules.clear()
                sys.modules.update(before)
                del sys.path[0]
        """,
        first_line=f"import {loaded_before}",
    )
    assert lines == ["True process []"] * 3
    assert errors == ""


def test_a_module_that_workers_cannot_import_is_named():
    module = types.ModuleType("known_here_alone")
    exec("def job(item):\n    return item\n", vars(module))
    sys.modules[module.__name__] = module
    try:
        with FallbackExecutor(2, budget="1 GB") as executor:
            batch = executor.run(module.job, range(5))
            assert executor.submit(jobs.square, 3).result() == 9
    finally:
        del sys.modules[module.__name__]
    assert {outcome.cause for outcome in batch.outcomes} == {"unpicklable"}
    assert isinstance(batch.outcomes[0].error, UnpicklableError)
    assert "No module named 'known_here_alone'" in str(batch.outcomes[0].error)


def test_an_initializer_that_cannot_travel_leads_to_threads(caplog):
    seen = []
    with FallbackExecutor(2, budget="1 GB", initializer=lambda: seen.append(1)) as executor:
        assert executor.run(jobs.square, range(6)).values == [n * n for n in range(6)]
        assert executor.level == "thread"
    assert seen
    (event,) = executor.events
    assert "lambda" in event.cause
    assert [record.getMessage() for record in caplog.records] == [str(event)]


def test_an_initializer_that_workers_cannot_import_leads_to_threads():
    module = types.ModuleType("prepared_here_alone")
    exec("def prepare():\n    pass\n", vars(module))
    sys.modules[module.__name__] = module
    try:
        with FallbackExecutor(2, budget="1 GB", initializer=module.prepare) as executor:
            batch = executor.run(jobs.square, range(6))
    finally:
        del sys.modules[module.__name__]
    assert batch.values == [n * n for n in range(6)]
    assert {outcome.level for outcome in batch.outcomes} == {"thread"}


def test_a_working_directory_that_is_gone_leads_to_threads(tmp_path):
    lines, errors = output_of(
        tmp_path,
        """
        import os
        from pytest_membudget import FallbackExecutor

        if __name__ == "__main__":
            os.mkdir("gone")
            os.chdir("gone")
            os.rmdir("../gone")
            with FallbackExecutor(2, budget="1 GB") as executor:
                print(executor.run(abs, range(-5, 0)).values, executor.level)
        """,
    )
    assert lines == ["[5, 4, 3, 2, 1] thread"]
    assert "the working directory is gone" in errors


def test_a_script_that_is_gone_leads_to_threads(tmp_path):
    lines, _ = output_of(
        tmp_path,
        """
        import os
        from pytest_membudget import FallbackExecutor

        def job(item):
            return -item

        if __name__ == "__main__":
            os.remove(__file__)
            with FallbackExecutor(2, budget="1 GB") as executor:
                print(executor.run(job, range(5)).values, executor.level)
        """,
    )
    assert lines == ["[0, -1, -2, -3, -4] thread"]


def test_a_fork_server_of_the_programs_own_serves_as_well(tmp_path):
    lines, _ = output_of(
        tmp_path,
        """
        import pathlib, sys
        from multiprocessing import forkserver
        from pytest_membudget import FallbackExecutor

        if __name__ == "__main__":
            forkserver.ensure_running()
            pathlib.Path("later").mkdir()
            pathlib.Path("later/found_later.py").write_text("def job(item):\\n    return item * 2\\n")
            sys.path.insert(0, str(pathlib.Path("later").absolute()))
            import found_later
            with FallbackExecutor(2, budget="1 GB") as executor:
                print(executor.run(found_later.job, range(5)).values, executor.level)
        """,
    )
    assert lines == ["[0, 2, 4, 6, 8] process"]


@pytest.mark.parametrize("error", [pickle.PicklingError("not the same object"), EOFError("unexpected EOF")])
def test_whatever_keeps_processes_from_starting_leads_to_threads(monkeypatch, error):
    def no_pool(*args, **kwargs):
        raise error

    monkeypatch.setattr(process_worker, "ProcessWorker", no_pool)
    with FallbackExecutor(2, budget="1 GB") as executor:
        assert executor.run(jobs.square, range(6)).values == [n * n for n in range(6)]
        assert str(error) in executor.events[0].cause


class Unteachable(MemoryEstimator):
    def observe(self, size_bytes, peak_bytes, duration_s=None, **upper):
        raise ZeroDivisionError("the estimator's own")


def test_an_estimator_that_fails_to_learn_costs_no_result(tmp_path, caplog):
    path = tmp_path / "a"
    path.write_text("abc")
    with FallbackExecutor(1, budget="1 GB", estimator=Unteachable(overhead="1 MB")) as executor:
        assert executor.run(jobs.file_size, [path] * 5).values == [3] * 5
    assert "cannot learn from file_size" in caplog.text


def test_a_thread_that_a_task_left_running_does_not_keep_the_program(monkeypatch, caplog):
    monkeypatch.setattr(process_worker, "ENDING_S", 0.5)
    with FallbackExecutor(2, budget="1 GB") as executor:
        assert executor.run(jobs.leave_a_thread, range(6)).values == list(range(6))
        pids = {worker.pid for worker in executor._engine.driver.readings()}
    assert {record.args[0] for record in caplog.records} == pids
    assert "had not ended 0.5 s after its last call" in caplog.text


@pytest.mark.parametrize("job", [jobs.keep_a_pool, jobs.square_by_joblib])
def test_a_pool_that_a_task_has_kept_ends_with_its_worker(caplog, job):
    with FallbackExecutor(1, budget="1 GB") as executor:
        assert executor.run(job, range(3)).values == [0, 1, 4]
    assert "had not ended" not in caplog.text


class Raising:
    def __init__(self, error):
        self.error = error

    def raise_it(self):
        raise self.error


class NoPath(Raising):
    def __fspath__(self):
        return self.raise_it()


class NoPickle(Raising):
    def __reduce__(self):
        return self.raise_it()


@pytest.mark.parametrize(
    ("item", "cause"),
    [
        (NoPath(ZeroDivisionError()), "error"),
        (NoPickle(SystemExit(3)), "unpicklable"),
        (NoPickle(KeyboardInterrupt()), "unpicklable"),
    ],
    ids=lambda each: type(each.error).__name__ if isinstance(each, Raising) else each,
)
def test_an_input_whose_own_methods_raise_costs_no_other_one(tmp_path, item, cause):
    with FallbackExecutor(1, budget="1 GB") as executor:
        batch = executor.run(type, [1, item, 2], done=tmp_path / "done")
    assert [outcome.cause for outcome in batch.outcomes] == ["ok", cause, "ok"]


class Unpredictable(FileCharge):
    def first_bytes(self):
        raise ZeroDivisionError("the estimator's own")


@pytest.mark.parametrize("level", ["process", "thread", "sequential"])
def test_an_estimator_that_fails_to_predict_is_that_tasks_error(level):
    with FallbackExecutor(1, budget="1 GB", levels=(level,)) as executor:
        charge = Unpredictable(1, MemoryEstimator())
        task = executor._engine.task(jobs.square, (3,), {}, Charged(charge, None), CallOptions())
        future = executor._engine.submit(task)
        assert isinstance(future.exception(60), ZeroDivisionError)
        assert executor.submit(jobs.square, 3).result() == 9


@pytest.mark.parametrize(
    ("owner", "where"),
    [(process_worker.ProcessLauncher, "start"), (Scheduler, "replied"), (Scheduler, "submitted")],
)
def test_a_defect_is_told_to_everybody_and_nobody_waits(monkeypatch, owner, where):
    def defect(*args, **kwargs):
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(owner, where, defect)
    with FallbackExecutor(1, budget="1 GB") as executor:
        assert str(executor.submit(jobs.square, 3).exception()) == "ours"
        with pytest.raises(ZeroDivisionError):
            executor.submit(jobs.square, 3)


PROGRAM = """
from pytest_membudget import FallbackExecutor

def job(item):
    return -item

if __name__ == "__main__":
    with FallbackExecutor(2, budget="1 GB") as executor:
        print(executor.run(job, range(5)).values, executor.level)
"""


@pytest.mark.parametrize("how", ["stdin", "package", "folder", "zip"])
def test_programs_that_workers_cannot_import_run_in_processes(tmp_path, how):
    pytest.importorskip("cloudpickle")
    (tmp_path / "program").mkdir()
    (tmp_path / "program/__main__.py").write_text(PROGRAM)
    zipapp.create_archive(tmp_path / "program", tmp_path / "program.pyz")
    arguments = {"stdin": ["-"], "package": ["-m", "program"], "folder": ["program"], "zip": ["program.pyz"]}[
        how
    ]
    done = subprocess.run(
        [sys.executable, *arguments],
        input=PROGRAM if how == "stdin" else None,
        capture_output=True,
        text=True,
        timeout=80,
        check=False,
        cwd=tmp_path,
    )
    assert (done.stdout, done.stderr) == ("[0, -1, -2, -3, -4] process\n", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")
def test_a_forked_child_has_workers_of_its_own_and_not_its_parents(tmp_path):
    lines, errors = output_of(
        tmp_path,
        """
        import os, warnings
        from pytest_membudget import FallbackExecutor

        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads, since Python 3.12

        if __name__ == "__main__":
            with FallbackExecutor(2, budget="1 GB") as executor:
                print(list(executor.map(abs, [-1])), flush=True)
                child = os.fork()
                if child == 0:
                    try:
                        executor.submit(abs, -2)
                    except RuntimeError as error:
                        print("make one in each process" in str(error))
                    with FallbackExecutor(2, budget="1 GB") as another:
                        print(another.run(abs, [-3] * 5).values, another.level, flush=True)
                    os._exit(0)
                os.waitpid(child, 0)
                print(list(executor.map(abs, [-4])), executor.level)
        """,
    )
    assert lines == ["[1]", "True", "[3, 3, 3, 3, 3] process", "[4] process"]
    assert not errors
