"""README and docs are run: see `document_runner.py` for what a document may show."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from document_runner import as_shown, blocks, commands, undisturbed
from pytest_membudget.plugin.options import OPTIONS

ROOT = Path(__file__).parents[1]
RUNNER = ROOT / "tests" / "document_runner.py"
TIMEOUT_S = 400  # the longest takes half a minute on a quiet machine
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("**/*.md"))]


def run(document, folder):
    """Runs a document as a user does: in an empty folder, by this interpreter, without pytest's own variables."""
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))}
    outside["MEMBUDGET_HOST_DIRECTORY"] = f"{folder}-host"  # other tests reserve all of this host meanwhile
    return subprocess.run(
        [sys.executable, RUNNER, document],
        check=False,
        cwd=folder,
        env=outside,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )


@pytest.mark.processes
@pytest.mark.timeout(TIMEOUT_S + 20)
@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_the_document_says_is_true(document, tmp_path, request):
    fills_it = "/dev/shm" in document.read_text(encoding="utf-8")
    request.getfixturevalue("alone_with_shared_memory" if fills_it else "beside_no_shared_memory")
    done = run(document, tmp_path)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document):
    text = document.read_text(encoding="utf-8")
    # `../../actions/` leads from a file in the repository to its pages on GitHub.
    text = re.sub(r"\]\(\.\./\.\./actions/(workflows/[\w.-]+?)(/badge\.svg)?\)", r"](.github/\1)", text)
    for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", text):
        assert (document.parent / target).exists(), target


def test_the_index_links_every_document_once():
    linked = re.findall(r"\]\(([^)#\s/]+\.md)", (ROOT / "docs" / "index.md").read_text(encoding="utf-8"))
    assert sorted(linked) == sorted(
        path.name for path in (ROOT / "docs").glob("*.md") if path.name != "index.md"
    )


@pytest.mark.slow  # CI has a job that builds the site
def test_the_site_is_built_without_a_warning(tmp_path):
    pytest.importorskip("sphinx", reason="sphinx is not installed (extra docs)")
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-W",
        "--keep-going",
        "-q",
        "-b",
        "html",
        ROOT / "docs",
        tmp_path / "site",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    options = (tmp_path / "site" / "reference.html").read_text(encoding="utf-8")
    assert all(option.flag in options for option in OPTIONS)
    names = (tmp_path / "site" / "api.html").read_text(encoding="utf-8")
    assert all(f"pytest_membudget.{name}" in names for name in ("measure", "FallbackExecutor", "Measurement"))


@pytest.mark.parametrize(
    "text, complaint",
    [
        ("```python\n\nassert 1 == 2\n```\n", 'false.md", line 3'),
        ("```console\n$ echo one\ntwo\n```\n", "but the document shows\ntwo"),
        ("```console\n$ exit 3\n```\n", "ended with 3"),
        ("```python\n1\n", "does not end"),
        ('```python title="a.py"\n1\n```\n', "write the file's name in backticks above the block"),
        (
            '`a.py`\n```python\nx = 1\n```\n```console\n$ python -c "from a import x; print(x)"\nno\n```\n',
            "printed\n1",
        ),
    ],
)
def test_a_document_that_is_false_fails(text, complaint, tmp_path):
    (tmp_path / "false.md").write_text(text)
    done = run(tmp_path / "false.md", tmp_path)
    assert done.returncode != 0
    assert complaint in done.stderr


def test_blocks_share_a_namespace_and_commands_know_the_last_status(tmp_path):
    text = "```python\nx = 1\n```\n- in a list\n  ```python\n  assert x == 1\n  ```\n```console\n$ exit 3\n$ echo $?\n3\n```\n"
    (tmp_path / "true.md").write_text(text)
    assert run(tmp_path / "true.md", tmp_path).returncode == 0


@pytest.mark.parametrize(
    "printed, shown, same",
    [
        ("peak 187 MiB in 3.1 s\n", "peak 2.00 GiB in 98 ms", True),
        ("peak 187 MiB\n", "valley 187 MiB", False),
        ("a\nb\nc\n", "a\n...\nc", True),
        ("a\nc\n", "a\n...\nc", True),
        ("a\nb\nc\n", "...\nc", True),
        ("a\nb\nc\n", "...\nb", False),
        ("at /tmp/x/y.csv here\n", "at .../y.csv here", True),
        ("name     1\n--------\n", "name 200\n---", True),
        ("anything\n", "", True),
    ],
)
def test_figures_spacing_and_dots_match_loosely_and_words_do_not(printed, shown, same):
    assert as_shown(printed, shown.splitlines()) == same


def test_a_figure_that_another_program_disturbed_is_read_as_the_exact_one():
    disturbed = (
        "job: peak at least 66.9 MiB, at most 67.7 MiB, 1 process\n"
        "job: up to 844 KiB of shared memory or of files in tmpfs came meanwhile, and other programs run here: whose it is\n"
    )
    assert undisturbed(disturbed) == "job: peak 66.9 MiB (exact, by the kernel), 1 process\n"
    (inexact, _) = disturbed.splitlines(keepends=True)
    assert undisturbed(inexact) == inexact


def test_a_block_keeps_its_title_and_a_command_its_continuation():
    (block,) = blocks("`pyproject.toml`\n\n```toml\n[tool]\n```\n")
    assert (block.language, block.title, block.text) == ("toml", "pyproject.toml", "[tool]\n")
    (command,) = commands("$ echo a \\\n    b\na b\n")
    assert command.text == "echo a b" and command.shown == ["a b"]
