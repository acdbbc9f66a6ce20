import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest_membudget


def test_every_public_name_can_be_imported():
    for name in pytest_membudget.__all__:
        assert getattr(pytest_membudget, name) is not None, name


def test_type_checkers_are_told_the_same_names():
    stub = Path(pytest_membudget.__file__).with_suffix(".pyi").read_text()
    assert sorted(re.findall(r"import \w+ as (\w+)", stub)) == sorted(pytest_membudget.__all__)


def test_importing_the_package_loads_none_of_the_optional_or_slow_libraries():
    heavy = "pytest memray numpy scipy dask distributed matplotlib jinja2 psutil msgspec"
    code = f"import sys, pytest_membudget; print([m for m in {heavy.split()!r} if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_no_module_takes_the_place_of_a_name_of_its_room():
    code = """
        import importlib, pkgutil, types, pytest_membudget as package
        scripts = "pytest_membudget.__main__", "pytest_membudget.plugin.fresh.child_session"  # these act when they are imported
        walked = pkgutil.walk_packages(package.__path__, package.__name__ + ".")
        names = [each.name for each in walked if each.name not in scripts]
        loaded = [importlib.import_module(name) for name in names]
        for name, module in zip(names, loaded):
            for public in getattr(module, "__all__", ()):
                assert not isinstance(getattr(module, public), types.ModuleType), f"{name}.{public}"
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, timeout=60)
