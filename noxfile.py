"""`nox`, called by `make test-all`: all tests, the slow ones too, under each further Python that is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import nox

nox.options.default_venv_backend = "none"


def interpreter(version: str) -> str | None:
    """A Python of this version that really starts: a version manager may leave names on PATH that only fail."""
    managed = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates = [shutil.which(f"python{version}")]
    candidates += map(str, sorted(managed.glob(f"{version}.*/bin/python{version}")))
    for candidate in candidates:
        if (
            candidate
            and subprocess.run([candidate, "-c", "import venv"], capture_output=True, check=False).returncode
            == 0
        ):
            return candidate
    return None


@nox.session(python=False)
@nox.parametrize("version", ["3.12", "3.13", "3.14", "3.15"])
def tests(session: nox.Session, version: str) -> None:
    """Everything but linting."""
    python = interpreter(version)
    if python is None:
        session.skip(f"Python {version} is not installed here, so nothing was tested under it")
    environment = session.cache_dir / f"python-{version}"
    inside = str(environment / "bin" / "python")
    session.run(python, "-m", "venv", str(environment), external=True)
    session.run(
        inside, "-m", "pip", "install", "--quiet", "--no-compile", "--editable", ".[dev]", external=True
    )
    session.run(inside, "-m", "pytest", "-m", "slow or not slow", *session.posargs, external=True)
