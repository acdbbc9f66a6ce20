"""What a release needs says the same everywhere, and its workflows run what is pinned, without a secret."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from pytest_membudget import __version__

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def steps_of(path):
    for job in yaml.safe_load(path.read_text())["jobs"].values():
        yield from job["steps"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_by_commit_and_nothing_needs_a_secret(path):
    used = [step["uses"] for step in steps_of(path) if "uses" in step]
    assert used
    assert all(re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", each) for each in used)
    assert "secrets." not in path.read_text()


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_zizmor_finds_nothing(path):
    zizmor = Path(sys.executable).with_name("zizmor")
    command = [zizmor, "--offline", "--no-progress", "--persona", "pedantic", path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_supported_python_is_tested():
    (tests,) = [path for path in WORKFLOWS if path.name == "tests.yml"]
    tested = yaml.safe_load(tests.read_text())["jobs"]["tests"]["strategy"]["matrix"]["python"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = [each.rpartition(" ")[2] for each in project["classifiers"] if "Python :: 3." in each]
    assert tested == declared
    assert project["requires-python"] == f">={declared[0]}"


def test_make_and_files_that_the_workflows_name_are_there():
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    for path in WORKFLOWS:
        for step in steps_of(path):
            words = step.get("run", "").split()
            assert words[:1] != ["make"] or words[1] in targets
            for word in words:
                assert not word.startswith(("tests/", "ci/")) or (ROOT / word).exists(), word


def test_the_citation_is_of_this_version():
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == __version__


def test_the_conda_recipe_is_read_by_its_builder_and_says_what_the_project_says():
    from rattler_build import PlatformConfig, RenderConfig, Stage0Recipe

    (variant,) = Stage0Recipe.from_file(ROOT / "ci" / "conda" / "recipe.yaml").render(
        render_config=RenderConfig(platform=PlatformConfig(target_platform="linux-64"))
    )
    recipe = variant.recipe.to_dict()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirements, python = recipe["requirements"], recipe["build"]["python"]
    found = {re.sub(r" (?=[>=])", "", each) for each in requirements["run"]}
    assert found == {*project["dependencies"], f"python{project['requires-python']}"}
    assert recipe["package"] == {"name": project["name"], "version": __version__}
    assert python["entry_points"] == [f"{name} = {where}" for name, where in project["scripts"].items()]
    urls = {recipe["about"][key].rstrip("/") for key in ("homepage", "repository", "documentation")}
    assert urls <= set(project["urls"].values())
