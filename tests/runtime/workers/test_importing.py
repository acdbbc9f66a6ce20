"""Functions that workers cannot import by themselves: of test modules, of notebooks, lambdas and closures."""

import os
import subprocess
import sys
import textwrap
import threading

import pytest

from pytest_membudget import FallbackExecutor, UnpicklableError
from pytest_membudget.runtime.workers import worker_main as worker
from pytest_membudget.runtime.workers.serialization import packed_for_here

pytestmark = [pytest.mark.processes, pytest.mark.timeout(120)]

TEST_MODULE = """
    import dataclasses
    from pytest_membudget import FallbackExecutor

    {more}

    @dataclasses.dataclass
    class Case:
        number: int

    STATE = []

    def prepare(number):
        STATE.append(number)

    def double(case):
        return Case(2 * case.number + STATE[0])

    def test_it():
        with FallbackExecutor(
            2, budget="1 GB", levels=("process",), mp_context={context!r}, initializer=prepare, initargs=(1,)
        ) as executor:
            batch = executor.run(double, [Case(number) for number in range(5)])
            assert batch.values == [Case(2 * number + 1) for number in range(5)]
            assert executor.submit(len, [Case(1)]).result() == 1
            assert not [event for event in executor.events if event.kind != "pressure"]
"""


def run_pytest(folder, mode, *more):
    """As the command `pytest` does, which finds no modules in the working directory; how many tests passed."""
    alone = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_PLUGINS": "pytest_membudget.plugin"}
    done = subprocess.run(
        [sys.executable, "-P", "-m", "pytest", f"--import-mode={mode}", "-p", "no:cacheprovider", *more],
        capture_output=True, text=True, timeout=100, check=False, cwd=folder, env=os.environ | alone,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.count("PASSED")


def make(folder, files):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))


@pytest.mark.parametrize("context", ["spawn", None])
def test_functions_of_test_modules_run_in_workers(tmp_path, context):
    test_module = TEST_MODULE.format(context=context, more="")
    make(tmp_path, {"tests/sub/test_it.py": test_module, "tests/test_it.py": test_module})
    assert run_pytest(tmp_path, "importlib", "-v") == 2
    assert run_pytest(tmp_path, "prepend", "-v", "tests/sub") == 1


@pytest.mark.parametrize("context", [pytest.param("spawn", marks=pytest.mark.slow), None])
def test_test_modules_of_packages_run_in_workers(tmp_path, context):
    test_module = TEST_MODULE.format(context=context, more="from .helper import HELPED")
    make(
        tmp_path,
        {"tests/__init__.py": "", "tests/helper.py": "HELPED = True", "tests/test_it.py": test_module},
    )
    assert run_pytest(tmp_path, "importlib", "-v") == 1


def test_a_test_module_named_like_an_installed_one_is_the_right_one(tmp_path):
    # By its name alone a worker would find the standard library's.
    make(tmp_path, {"tabnanny.py": TEST_MODULE.format(context=None, more="")})
    assert run_pytest(tmp_path, "importlib", "-v", "-o", "python_files=tabnanny.py") == 1


def test_a_module_that_is_loaded_after_the_worker_began_is_found(tmp_path, monkeypatch):
    import importlib.util

    path = tmp_path / "late.py"
    path.write_text("def job(): return 7\n")
    with FallbackExecutor(1, budget="1 GB", levels=("process",)) as executor:
        pid = executor.submit(worker.os.getpid).result()
        spec = importlib.util.spec_from_file_location("loaded_late", path)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "loaded_late", module)
        spec.loader.exec_module(module)
        assert executor.submit(module.job).result() == 7
        assert executor.submit(worker.os.getpid).result() == pid


CELL = """
from pytest_membudget import FallbackExecutor

class Case:
    def __init__(self, number):
        self.number = number

def double(case):
    return Case(2 * case.number)

with FallbackExecutor(2, budget="1 GB", levels=("process",), mp_context={context!r}) as executor:
    batch = executor.run(double, [Case(number) for number in range(5)])
    print([type(value) is Case and value.number for value in batch.values])
"""


@pytest.mark.parametrize("context", ["spawn", None])
def test_functions_that_were_typed_in_travel_by_value(context):
    done = subprocess.run(
        [sys.executable, "-c", CELL.format(context=context)],
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("[0, 2, 4, 6, 8]\n", "")


def test_lambdas_and_closures_travel_by_value():
    factor = 3
    with FallbackExecutor(2, budget="1 GB", levels=("process",)) as executor:
        assert list(executor.map(lambda number: factor * number, range(5))) == [0, 3, 6, 9, 12]
        returned = executor.submit(lambda: lambda: factor).result()
    assert returned() == 3


def test_without_cloudpickle_the_message_says_what_would_help(monkeypatch):
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    with FallbackExecutor(1, budget="1 GB", levels=("process",)) as executor:
        error = executor.submit(lambda: 1).exception()
    assert isinstance(error, UnpicklableError)
    assert "the arguments of test_without_cloudpickle" in str(error)
    assert "pip install 'pytest-membudget[cloudpickle]'" in str(error)


def test_what_keeps_a_lambda_from_travelling_is_named():
    """Not that it is a lambda, which is no obstacle to cloudpickle."""
    pytest.importorskip("cloudpickle")
    lock = threading.Lock()
    with pytest.raises(TypeError, match="lock"):
        packed_for_here(lambda: lock, (), {})
