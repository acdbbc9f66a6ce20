"""Which modules another process would not find by their names, and that it finds them when it is told."""

import importlib
import importlib.util
import pickle
import subprocess
import sys
from types import ModuleType

import pytest

from pytest_membudget.module_origins import Arriving, Origin, install, off_path


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Loads a file under a name, as pytest does in its import mode `importlib`."""

    def load(name, file="made.py", text="def job(): return __name__\n"):
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return module

    return load


def test_what_the_path_leads_to_is_not_told(load, tmp_path, monkeypatch):
    import email.message  # of a package

    assert email.message
    monkeypatch.syspath_prepend(tmp_path)
    load("made")
    assert not {"made", "email", "email.message", "pytest", "__main__"} & set(off_path())


def test_an_object_that_only_says_it_is_a_module_is_left_alone(monkeypatch):
    class Library:  # cffi's, as `cryptography` has one
        __class__ = ModuleType

    monkeypatch.setitem(sys.modules, "a_library", Library())
    assert "a_library" not in off_path()


def test_a_module_from_elsewhere_is_told_with_its_file(load):
    module = load("made")
    assert off_path()["made"] == Origin(module.__file__, None)


def test_a_module_under_another_name_than_its_files_is_told(load, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    module = load("settings", "other.py")
    assert off_path()["settings"] == Origin(module.__file__, None)


def test_a_package_that_is_made_up_is_told_with_its_modules(load, monkeypatch):
    monkeypatch.setitem(sys.modules, "cases", ModuleType("cases"))
    module = load("cases.made", "cases/made.py")
    found = off_path()
    assert found["cases"] == Origin(None, ())
    assert found["cases.made"] == Origin(module.__file__, None)


def test_a_package_without_a_file_is_told_where_no_path_leads_to_its_folder(load, tmp_path, monkeypatch):
    package = ModuleType("cases")
    package.__path__ = [str(tmp_path / "cases")]
    monkeypatch.setitem(sys.modules, "cases", package)
    load("cases.made", "cases/made.py")
    assert off_path()["cases"] == Origin(None, (str(tmp_path / "cases"),))
    assert "cases.made" not in off_path()  # its package leads to it
    monkeypatch.syspath_prepend(tmp_path)
    assert "cases" not in off_path()


def test_a_package_that_a_loader_of_its_own_makes_is_left_to_it(load, monkeypatch):
    package = ModuleType("cases")
    package.__spec__ = importlib.machinery.ModuleSpec("cases", loader=object(), is_package=True)
    monkeypatch.setitem(sys.modules, "cases", package)
    load("cases.made", "cases/made.py")
    assert "cases" not in off_path()


def test_an_installed_package_stays_the_one_that_is_found(load):
    load("email.made", "email/made.py")  # as a project's folder named like an installed package
    found = off_path()
    assert "email.made" in found
    assert "email" not in found


def test_nothing_is_searched_again_while_nothing_is_loaded(load):
    load("made")
    assert off_path() is off_path()
    before = off_path()
    load("made_later", "made_later.py")
    assert off_path() is not before


def test_a_module_that_loads_when_it_is_used_is_left_asleep(tmp_path, monkeypatch):
    (tmp_path / "sleepy.py").write_text("raise AssertionError('awake')")
    spec = importlib.util.spec_from_file_location("sleepy", tmp_path / "sleepy.py")
    spec.loader = importlib.util.LazyLoader(spec.loader)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "sleepy", module)
    spec.loader.exec_module(module)
    assert "sleepy" in off_path()


def test_what_arrives_is_installed_before_what_comes_after_it(load):
    load("made")
    program = (
        "import pickle, sys; _, job = pickle.load(sys.stdin.buffer); print(job(), job.__code__.co_filename)"
    )
    sent = pickle.dumps((Arriving(off_path()), sys.modules["made"].job))
    done = subprocess.run(
        [sys.executable, "-c", program], input=sent, capture_output=True, timeout=60, check=True
    )
    assert done.stdout.decode().split() == ["made", sys.modules["made"].__file__]


def test_a_file_that_is_missing_there_is_looked_for_as_ever(monkeypatch):
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.setattr("pytest_membudget.module_origins._Finder.origins", {})
    install({"made": Origin("/missing/made.py", None)})
    with pytest.raises(ModuleNotFoundError, match="No module named 'made'"):
        importlib.import_module("made")
