"""A fresh interpreter finds a function of a module that no path leads to."""

import importlib.util
import subprocess
import sys

import msgspec
import pytest

from pytest_membudget.calibration.worker import refer_to

PROGRAM = """
import sys, msgspec
from pytest_membudget.calibration.worker import FunctionReference, find_function
print(find_function(msgspec.json.decode(sys.stdin.buffer.read(), type=FunctionReference))(7))
"""


def test_a_function_of_a_test_module_is_found(tmp_path, monkeypatch):
    path = tmp_path / "test_it.py"
    path.write_text("def job(number): return number, __name__\n")
    spec = importlib.util.spec_from_file_location("made.test_it", path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "made", type(sys)("made"))
    monkeypatch.setitem(sys.modules, "made.test_it", module)
    spec.loader.exec_module(module)
    sent = msgspec.json.encode(refer_to(module.job))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], input=sent, capture_output=True, timeout=60, check=True
    )
    assert done.stdout.decode() == "(7, 'made.test_it')\n"


TYPED = """
import sys, msgspec
from pytest_membudget.calibration.worker import refer_to
factor = 3
def job(number): return number * factor
sys.stdout.buffer.write(msgspec.json.encode(refer_to(job)))
"""


@pytest.mark.parametrize("by_pipe", [False, True])
def test_a_function_that_is_in_no_file_is_sent_as_what_it_is_made_of(by_pipe):
    pytest.importorskip("cloudpickle")
    typed = ([sys.executable], TYPED.encode()) if by_pipe else ([sys.executable, "-c", TYPED], b"")
    sent = subprocess.run(typed[0], input=typed[1], capture_output=True, timeout=60, check=True).stdout
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], input=sent, capture_output=True, timeout=60, check=True
    )
    assert done.stdout.decode() == "21\n"


def test_a_function_that_is_in_no_file_needs_cloudpickle():
    without = "import sys; sys.modules['cloudpickle'] = None\n" + TYPED
    done = subprocess.run(
        [sys.executable, "-c", without], capture_output=True, text=True, timeout=60, check=False
    )
    assert "calibrating a function that is in no file" in done.stderr
    assert "pip install 'pytest-membudget[cloudpickle]'" in done.stderr
