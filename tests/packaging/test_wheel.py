"""The wheel as a stranger gets it: nothing is missing that the checkout would have supplied."""

import json
import re
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "pytest_membudget"
MOST_BYTES = 10_000_000

pytestmark = [pytest.mark.processes, pytest.mark.timeout(200), pytest.mark.xdist_group(__name__)]

TEST = """
import pytest

@pytest.mark.memory_budget("30 MiB")
def test_fits():
    assert len(bytearray(b"x") * 8_000_000)

@pytest.mark.memory_budget("2 MiB")
def test_does_not_fit():
    assert len(bytearray(b"x") * 30_000_000)
"""


PROGRAM = """
from pytest_membudget import FallbackExecutor, measure_isolated, synthesize

def count(path):
    with open(path, "rb") as file:
        return len(file.read())

if __name__ == "__main__":
    try:
        import pytest
    except ModuleNotFoundError as error:
        print(type(error).__name__)
    paths = [synthesize(f"{number}.csv", "1 kB").path for number in range(2)]
    with FallbackExecutor(budget="1 GB") as executor:
        batch = executor.run(count, paths)
    print(*(outcome.cause for outcome in batch.outcomes))
    measured = measure_isolated(count, paths[0])
    print(measured.value, measured.peak_bytes >= 0)
"""


def files_of_the_package():
    return {
        path.relative_to(ROOT).as_posix()
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_wheel_has_every_file_of_the_package(distributions):
    _, wheel = distributions
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if name.startswith("pytest_membudget/")}
    assert names == files_of_the_package()
    assert "pytest_membudget/py.typed" in names


def test_the_description_shows_its_links_and_pictures_on_the_index(distributions):
    """All of them below the home that `[project.urls]` names, which is written nowhere else."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    home = project["urls"]["Repository"]
    with zipfile.ZipFile(distributions[1]) as archive:
        (name,) = [each for each in archive.namelist() if each.endswith("METADATA")]
        description = archive.read(name).decode().partition("\n\n")[2]
    links = re.findall(r"\]\(([^)\s]+)\)", description)
    assert f"{home}/blob/main/docs/ci.md" in links
    assert f"{home}/raw/main/docs/images/report.png" in links
    assert f"{home}/actions/workflows/tests.yml/badge.svg" in links
    assert all(link.startswith("https://") for link in links)
    documents = [ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("*.md")]
    assert [path.name for path in documents if home in path.read_text(encoding="utf-8")] == []


def test_the_sdist_has_what_a_packager_needs(distributions):
    sdist, _ = distributions
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    needed = "LICENSE README.md CHANGELOG.md pyproject.toml Makefile tests/conftest.py examples/demo.py docs/index.md"
    assert set(needed.split()) <= names
    assert not [name for name in names if name.startswith((".venv", ".git/"))]


def test_it_is_imported_from_where_it_was_installed(installed, tmp_path):
    code = "import pytest_membudget as p; print(p.__file__, p.__version__, p.measure(len, 'ab').value)"
    path, version, value = installed.run(installed.python, "-c", code, cwd=tmp_path).stdout.split()
    assert Path(path).is_relative_to(installed.folder)
    assert (version, value) == ("0.1.0", "2")


def test_the_command_works(installed, tmp_path):
    said = installed.run(installed.python.with_name("membudget"), "doctor", cwd=tmp_path).stdout
    assert "limit" in said


def test_a_marked_test_is_judged_compared_and_shown_on_a_page(installed, tmp_path):
    (tmp_path / "test_marked.py").write_text(TEST)
    command = (installed.python, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    reports = ("--membudget-report=report.html", "--membudget-report=report.json")
    compare = "--membudget-baseline=baseline.json"
    installed.run(*command, compare, "--membudget-update-baseline", "test_marked.py::test_fits", cwd=tmp_path)
    done = installed.run(*command, *reports, compare, "test_marked.py", cwd=tmp_path, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    tests = json.loads((tmp_path / "report.json").read_text())["tests"]
    assert {test["nodeid"].rpartition("::")[2]: test["verdict"] for test in tests} == {
        "test_fits": "within",
        "test_does_not_fit": "over",
    }
    page = (tmp_path / "report.html").read_text()
    for name in ("page.css", "page.js"):
        style_or_script = (PACKAGE / "report" / "page_files" / name).read_text()
        assert style_or_script.strip()[:200] in page, name


def test_a_program_runs_where_pytest_is_not_installed(installed_without_pytest, tmp_path):
    (tmp_path / "nightly.py").write_text(PROGRAM)
    run = installed_without_pytest.run
    done = run(installed_without_pytest.python, "nightly.py", cwd=tmp_path)
    assert done.stdout.split() == ["ModuleNotFoundError", "ok", "ok", "1000", "True"], done.stderr
    calibrate = ("calibrate", "nightly:count", "--sizes", "10kB,20kB,40kB", "--repeats", "1")
    done = run(installed_without_pytest.python, "-m", "pytest_membudget", *calibrate, cwd=tmp_path)
    assert "nightly:count" in done.stdout


def test_the_default_install_is_small(installed, tmp_path):
    """What comes beside pytest and what pytest itself needs, compiled bytecode included."""
    code = """
import importlib.metadata as metadata
pytests = {"pytest", "iniconfig", "packaging", "pluggy", "pygments", "colorama"}
sizes = {
    each.name: sum(file.locate().stat().st_size for file in each.files if file.locate().is_file())
    for each in metadata.distributions()
    if each.name.lower() not in pytests
}
print(sum(sizes.values()), sizes)
"""
    total, sizes = installed.run(installed.python, "-c", code, cwd=tmp_path).stdout.split(maxsplit=1)
    assert int(total) <= MOST_BYTES, sizes
