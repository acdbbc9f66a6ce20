"""The workflow is ready to copy: it can be read, and the commands it runs are there."""

import re
import shlex
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
WORKFLOW = ROOT / "ci" / "github-workflow.yml"


def test_the_workflow_runs_the_gate_on_pushes_and_pull_requests():
    workflow = yaml.safe_load(WORKFLOW.read_text())
    assert set(workflow[True]) == {"push", "pull_request"}  # YAML reads the key `on` as true
    steps = workflow["jobs"]["memory"]["steps"]
    assert "python ci/gate.py" in [step.get("run") for step in steps]
    assert all(("uses" in step) != ("run" in step) for step in steps)


def test_scripts_and_extras_it_names_are_there():
    for step in yaml.safe_load(WORKFLOW.read_text())["jobs"]["memory"]["steps"]:
        for word in shlex.split(step.get("run", "")):
            assert not word.endswith(".py") or (ROOT / word).exists(), word
            for extra in re.findall(r"\[(\w+)\]", word):
                assert f"\n{extra} = [" in (ROOT / "pyproject.toml").read_text(), extra
