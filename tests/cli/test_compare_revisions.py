import json
import os
import signal
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.processes

TEST = """
from shop import rows

def test_rows():
    assert rows({})

def test_other():
    assert len(bytearray(5_000_000))
"""
SHOP = "def rows(n):\n    return [bytes(1000) for _ in range(n)]\n"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A checkout whose second commit needs twice the memory in `rows`."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    (folder / "pytest.ini").write_text("[pytest]\naddopts = -p pytest_membudget.plugin\n")
    (folder / "test_shop.py").write_text(TEST.format(10_000))
    for factor in ("", " * 2"):
        (folder / "shop.py").write_text(SHOP.replace("(n)]", f"(n{factor})]"))
        for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
            subprocess.run(["git", "-c", "user.name=x", "-c", "user.email=x@x", *words], check=True)
    return folder


def command(*words):
    return [sys.executable, "-m", "pytest_membudget", "compare", "--revisions", *words]


def left_over(project):
    status = subprocess.run(
        ["git", "status", "--porcelain", "--ignored"], capture_output=True, text=True, check=True
    )
    trees = subprocess.run(["git", "worktree", "list"], capture_output=True, text=True, check=True)
    return status.stdout + "".join(trees.stdout.splitlines(keepends=True)[1:])


def test_a_revision_is_equivalent_to_itself_and_nothing_is_left_in_the_checkout(project):
    done = subprocess.run(
        command("HEAD", "HEAD", "--json", "--", "-q", "test_shop.py"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert {test["nodeid"]: test["verdict"] for test in document["tests"]} == {
        "test_shop.py::test_rows": "equivalent",
        "test_shop.py::test_other": "equivalent",
    }
    assert document["error_rate"] == 0.01
    assert left_over(project) == ""


@pytest.mark.slow
def test_a_regression_is_called_by_name_with_the_function_that_grew(project):
    words = ("HEAD~1", "HEAD", "-o", "page.html", "--json", "--", "test_shop.py")
    done = subprocess.run(command(*words), capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    first = json.loads(done.stdout)["tests"][0]
    assert (first["nodeid"], first["verdict"]) == ("test_shop.py::test_rows", "regressed")
    assert "shop.py" in first["stacks"][0]["file"]
    assert first["stacks"][0]["grew_bytes"] == pytest.approx(10_000_000, rel=0.3)
    assert "<svg" in (project / "page.html").read_text()
    assert "<svg" in (project / "page.flame-1.svg").read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_interrupted_leaves_nothing(project, tmp_path, monkeypatch, number):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    running = subprocess.Popen(
        command("HEAD", "HEAD", "--", "test_shop.py"), stderr=subprocess.PIPE, text=True
    )
    for line in running.stderr:
        if "pair 1" in line:
            break
    time.sleep(0.3)
    os.kill(running.pid, number)
    running.communicate()
    assert running.returncode == 130
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith("membudget")] == []
    assert left_over(project) == ""


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["none", "HEAD", "--", "test_shop.py"], "has no commit 'none'"),
        (["HEAD", "HEAD", "--error-rate", "2", "--", "test_shop.py"], "not above 0 and at most 100%"),
        (["HEAD", "HEAD", "--", "nothing.py"], "pytest ended with exit code 4 at HEAD"),
    ],
)
def test_what_cannot_be_run_is_exit_2_with_a_reason(project, words, told):
    done = subprocess.run(command(*words), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert told in done.stderr


@pytest.mark.slow
def test_bisect_finds_the_commit_and_leaves_nothing(project):
    (project / "shop.py").write_text(SHOP.replace("(n)]", "(n * 2)]") + "# later\n")
    subprocess.run(
        ["git", "-c", "user.name=x", "-c", "user.email=x@x", "commit", "-qam", "later"], check=True
    )
    words = [
        sys.executable,
        "-m",
        "pytest_membudget",
        "bisect",
        "test_shop.py::test_rows",
        "HEAD~2",
        "HEAD",
        "--json",
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    head = subprocess.run(
        ["git", "rev-parse", "HEAD~1"], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert json.loads(done.stdout)["commit"] == head
    assert left_over(project) == ""
