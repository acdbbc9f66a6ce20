"""A fresh interpreter finds a function of a module that no path leads to."""

import importlib.util
import subprocess
import sys

import msgspec

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
