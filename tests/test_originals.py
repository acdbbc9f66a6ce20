"""The standard library as it was, on systems that lack a part of it."""

import subprocess
import sys

PROGRAM = """
import importlib, importlib.abc, os, pkgutil, sys

import pytest_membudget

def import_all():
    for found in pkgutil.walk_packages(pytest_membudget.__path__, "pytest_membudget."):
        # Linux alone has the helper and the guard; two others start a program, and joblib is slow to import.
        if ".helper" in found.name or found.name.endswith(("__main__", "child_session", "guard", "joblib")):
            continue
        try:
            importlib.import_module(found.name)
        except ImportError as error:
            print(found.name, error)

import_all()  # with all that others import, which is not what is tried here
for name in [name for name in sys.modules if name.startswith("pytest_membudget.")]:
    del sys.modules[name]
for name in ("fcntl", "resource", "termios"):
    sys.modules.pop(name, None)

class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in {"fcntl", "resource", "termios"}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Missing())
sys.modules["msvcrt"] = type(sys)("msvcrt")
sys.platform = "win32"
for name in ("O_CLOEXEC", "O_NONBLOCK", "sysconf", "memfd_create", "register_at_fork", "fork", "getuid"):
    delattr(os, name)
import_all()
"""


def test_every_module_can_be_imported_where_the_system_lacks_what_only_unix_has():
    ran = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert (ran.stdout, ran.returncode) == ("", 0), ran.stderr
