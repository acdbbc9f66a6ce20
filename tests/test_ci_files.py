"""The files for CI services are ready to copy: they can be read, what they run is there, and it runs in a shell."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
WORKFLOW = ROOT / "ci" / "github-workflow.yml"
ACTION = ROOT / "ci" / "action" / "action.yml"
PINNED = re.compile(r"uses: (\./[\w/]+|[\w./-]+@[0-9a-f]{40} # v\d+(\.\d+)+)$", re.MULTILINE)


def steps():
    return yaml.safe_load(WORKFLOW.read_text())["jobs"]["memory"]["steps"]


def test_the_workflow_runs_the_action_on_pushes_and_pull_requests():
    workflow = yaml.safe_load(WORKFLOW.read_text())
    assert set(workflow[True]) == {"push", "pull_request"}  # YAML reads the key `on` as true
    (memory,) = (step for step in steps() if step.get("uses") == "./ci/action")
    assert set(memory["with"]) <= set(yaml.safe_load(ACTION.read_text())["inputs"])
    assert (ROOT / memory["with"]["baseline"]).exists()
    assert (ROOT / memory["with"]["arguments"]).exists()
    assert all(("uses" in step) != ("run" in step) for step in steps())


def test_extras_that_it_installs_are_there():
    for step in steps():
        for word in shlex.split(step.get("run", "")):
            for extra in re.findall(r"\[(\w+)\]", word):
                assert f"\n{extra} = [" in (ROOT / "pyproject.toml").read_text(), extra


@pytest.mark.parametrize("path", [WORKFLOW, ACTION], ids=["workflow", "action"])
def test_each_action_is_pinned_by_its_commit(path):
    text = path.read_text()
    assert len(PINNED.findall(text)) == text.count("uses:")


def test_no_input_is_pasted_into_the_text_of_a_shell():
    for step in yaml.safe_load(ACTION.read_text())["runs"]["steps"]:
        assert "${{" not in step.get("run", "")


def test_each_input_and_output_says_what_it_is():
    action = yaml.safe_load(ACTION.read_text())
    described = [*action["inputs"].values(), *action["outputs"].values()]
    assert all(each["description"].strip() for each in described)


@pytest.mark.parametrize("name", ["gitlab-ci.yml", "Jenkinsfile"])
def test_the_recipes_of_other_services_run_the_same_script_with_variables_that_it_knows(name):
    text, script = (ROOT / "ci" / name).read_text(), (ROOT / "ci" / "action" / "run.sh").read_text()
    assert "bash ci/action/run.sh" in text
    for variable in set(re.findall(r"MEMBUDGET_[A-Z_]+", text)) - {"MEMBUDGET_CACHE_POLICY"}:
        assert variable in script


@pytest.mark.skipif(not shutil.which("actionlint"), reason="actionlint is not installed")
def test_actionlint_has_nothing_to_say(tmp_path):
    folder = tmp_path / ".github" / "workflows"
    folder.mkdir(parents=True)
    shutil.copy(WORKFLOW, folder)
    shutil.copytree(ACTION.parent, tmp_path / "ci" / "action")
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    done = subprocess.run(["actionlint"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout == ""


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """A project in a workspace of GitHub's, with the variables that a step has there."""
    for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY"):
        (tmp_path / name).touch()
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_ACTION_PATH", str(ACTION.parent))
    monkeypatch.setenv("GITHUB_WORKSPACE", str(tmp_path))
    monkeypatch.setenv("GITHUB_SHA", "c" * 40)
    monkeypatch.setenv("GITHUB_REPOSITORY", "them/theirs")
    monkeypatch.setenv("MEMBUDGET_PYTHON", sys.executable)
    monkeypatch.setenv("MEMBUDGET_HISTORY", ".membudget/history.sqlite")
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\naddopts = -p pytest_membudget.plugin -p no:cacheprovider\n"
    )
    (tmp_path / "test_a.py").write_text("def test_a():\n    assert len(bytearray(5_000_000))\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_step(step_id="run", **variables):
    """The step of the action with this id, by the shell that GitHub uses."""
    (step,) = (
        each for each in yaml.safe_load(ACTION.read_text())["runs"]["steps"] if each.get("id") == step_id
    )
    shell = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]
    return subprocess.run(shell, env={**os.environ, **variables}, capture_output=True, text=True, check=False)


@pytest.mark.processes
def test_the_step_keeps_the_history_and_writes_reports_comment_badge_and_summary(workspace):
    done = run_step(MEMBUDGET_ARGUMENTS="-q 'test_a.py'")
    assert done.returncode == 0, done.stdout + done.stderr
    outputs = dict(line.split("=", 1) for line in (workspace / "GITHUB_OUTPUT").read_text().splitlines())
    assert outputs == {
        "exit-code": "0",
        "comment-file": "membudget-reports/comment.md",
        "badge-file": "membudget-reports/badge.json",
    }
    comment = (workspace / outputs["comment-file"]).read_text()
    assert comment.startswith("<!-- pytest-membudget -->\n")
    assert "### Memory trend" in comment
    badge = json.loads((workspace / outputs["badge-file"]).read_text())
    assert badge["schemaVersion"] == 1
    assert re.fullmatch(r"1 test, 4\.\d+ MiB at most", badge["message"])
    assert (workspace / ".membudget" / "history.sqlite").exists()
    assert "Memory" in (workspace / "GITHUB_STEP_SUMMARY").read_text()


@pytest.mark.processes
def test_a_test_over_its_budget_fails_the_step_with_an_annotation_and_a_red_badge(workspace):
    done = run_step(MEMBUDGET_ARGUMENTS="test_a.py --membudget-default=1MB")
    assert done.returncode == 1
    assert "::error file=test_a.py,line=1" in done.stdout
    badge = json.loads((workspace / "membudget-reports" / "badge.json").read_text())
    assert (badge["message"], badge["color"]) == ("1 over budget", "red")


@pytest.mark.processes
def test_arguments_are_words_and_never_run(workspace):
    done = run_step(MEMBUDGET_ARGUMENTS="test_a.py -k 'test_a or $(touch pwned) `touch pwned`; touch pwned'")
    assert done.returncode != 0
    assert not (workspace / "pwned").exists()


@pytest.mark.processes
@pytest.mark.parametrize(
    ("earlier", "asked"), [("", "POST issues/7/comments"), ("42", "PATCH issues/comments/42")]
)
def test_a_comment_takes_the_place_of_the_earlier_one(workspace, earlier, asked):
    (workspace / "comment.md").write_text("<!-- pytest-membudget -->\n## Memory\n")
    tool = workspace / "bin" / "gh"
    tool.parent.mkdir()
    tool.write_text(f'#!/bin/sh\ncase "$*" in *--jq*) echo "{earlier}" ;; *) echo "$*" > asked ;; esac\n')
    tool.chmod(0o755)
    variables = {
        "PATH": f"{tool.parent}:{os.environ['PATH']}",
        "MEMBUDGET_COMMENT": "comment.md",
        "MEMBUDGET_PULL_REQUEST": "7",
    }
    subprocess.run(["bash", ACTION.parent / "comment.sh"], env={**os.environ, **variables}, check=True)
    method, _, place = asked.partition(" ")
    assert (
        f"--method {method} repos/them/theirs/{place} --field body=@comment.md"
        in (workspace / "asked").read_text()
    )
