"""A wheel built from the sdist of this checkout, installed into an empty environment outside of it."""

import os
import shutil
import subprocess
import sys
import tarfile
import venv
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
TEST_TOOLS = "pytest pytest-* _pytest py.py pluggy* iniconfig* packaging* pygments*".split()
"""The files of pytest, and of what only pytest requires."""


class Installed(NamedTuple):
    """An environment that holds the wheel and what it requires, and nothing of the checkout."""

    python: Path
    folder: Path

    def run(self, *command, cwd, check=True):
        """Runs `command` without any variable by which the checkout or this test run could be found."""
        outside = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PYTEST_", "PYTHON", "COV_", "VIRTUAL_ENV"))
        }
        return subprocess.run(
            command, check=check, cwd=cwd, env=outside, capture_output=True, text=True, timeout=100
        )


@pytest.fixture(scope="session")
def distributions(tmp_path_factory):
    """The sdist, and the wheel that is built from it: what the sdist lacks, the wheel lacks too."""
    folder = tmp_path_factory.mktemp("dist")
    _build("sdist", ROOT, folder)
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (source,) = (folder / "unpacked").iterdir()
    _build("wheel", source, folder)
    (wheel,) = folder.glob("*.whl")
    return sdist, wheel


@pytest.fixture(scope="session")
def newest(distributions, tmp_path_factory):
    """With the newest versions of what it requires."""
    return _install([distributions[1]], tmp_path_factory.mktemp("newest"))


@pytest.fixture(scope="session", params=["newest", "lowest"])
def installed(request, distributions, tmp_path_factory):
    """With the newest versions of what it requires, and with the lowest that `pyproject.toml` declares."""
    if request.param == "newest":
        return request.getfixturevalue("newest")
    if sys.version_info >= (3, 13):
        pytest.skip("the lowest versions have no wheels for this Python; 3.11 and 3.12 test them")
    folder = tmp_path_factory.mktemp("lowest")
    lowest = subprocess.check_output([sys.executable, ROOT / "ci" / "lowest.py"], text=True)
    (folder / "constraints.txt").write_text(lowest)
    return _install([distributions[1], "--constraint", folder / "constraints.txt"], folder)


@pytest.fixture(scope="session")
def installed_without_pytest(newest, tmp_path_factory):
    """As a program in production has it that was packaged without its test tools."""
    folder = tmp_path_factory.mktemp("without_pytest")
    python = _environment(folder)
    shutil.copytree(
        _packages(newest.python),
        _packages(python),
        ignore=shutil.ignore_patterns(*TEST_TOOLS),
        dirs_exist_ok=True,
    )
    return Installed(python, folder)


def _environment(folder):
    """The interpreter of an empty environment in `folder`."""
    venv.create(folder / "env", with_pip=False)
    return folder / "env" / ("Scripts" if os.name == "nt" else "bin") / "python"


def _packages(python):
    return subprocess.check_output(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'), end='')"], text=True
    )


def _install(what, folder):
    python = _environment(folder)
    pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check"]
    done = subprocess.run([*pip, "install", "--quiet", *what], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{what} could not be installed:\n{done.stderr}"
    return Installed(python, folder)


def _build(target, source, folder):
    """Builds with the backend of this environment; its own needs no network, and writes nothing into `source`."""
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", folder],
        cwd=source,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
