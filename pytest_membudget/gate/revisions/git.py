"""What git knows of a project, and a revision of it checked out beside the checkout that is worked in."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pytest_membudget.errors import UsageError

#: Where CI services say which commit they run, for checkouts without git.
_CI_VARIABLES = (
    "GITHUB_SHA",
    "CI_COMMIT_SHA",
    "GIT_COMMIT",
    "BITBUCKET_COMMIT",
    "CIRCLE_SHA1",
    "BUILD_VCS_NUMBER",
)
_GIT_S = 600.0


class Repository(NamedTuple):
    """A checkout: its top folder, and where the caller stands below it."""

    top: Path
    below: Path


class Checkout(NamedTuple):
    """One revision in a folder of its own; `name` is what the user called it."""

    name: str
    commit: str
    top: Path
    below: Path

    @property
    def folder(self) -> Path:
        """Where commands run: the caller's own place, in this checkout."""
        return self.top / self.below


def current_revision(folder: str | os.PathLike[str]) -> str:
    """The commit that is checked out at `folder`, else what the CI service says, else nothing.

    "+changed" follows where tracked files differ from it: such a run measures no commit.
    """
    done = _git(folder, "rev-parse", "--verify", "HEAD^{commit}")
    if done is None or done.returncode:
        return next((value for name in _CI_VARIABLES if (value := os.environ.get(name))), "")
    changed = _git(folder, "diff-index", "--quiet", "HEAD", "--")
    mark = "+changed" if changed is not None and changed.returncode == 1 else ""
    return done.stdout.strip() + mark


def find_repository(folder: str | os.PathLike[str]) -> Repository:
    """The checkout that `folder` lies in.

    Raises:
        UsageError: there is none, or no git.
    """
    done = _git(folder, "rev-parse", "--show-toplevel")
    if done is None:
        raise UsageError("git was not found or did not answer; two revisions need it")
    if done.returncode:
        raise UsageError(f"{folder} lies in no git checkout; run this inside the project")
    top = Path(done.stdout.strip()).resolve()
    return Repository(top, Path(folder).resolve().relative_to(top))


def commit_of(repository: Repository, name: str) -> str:
    """The commit that `name` means: a hash, branch, tag, or HEAD~3.

    Raises:
        UsageError: there is no such commit here.
    """
    done = _git(repository.top, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
    if done is None or done.returncode:
        raise UsageError(
            f"this checkout has no commit {name!r}; in CI it may be a shallow one: fetch it first, "
            "with git fetch or fetch-depth: 0"
        )
    return done.stdout.strip()


def commits_between(repository: Repository, good: str, bad: str) -> list[str]:
    """The commits after `good` up to `bad`, the oldest first, along first parents.

    Raises:
        UsageError: `good` is no ancestor of `bad`.
    """
    done = _git(repository.top, "merge-base", "--is-ancestor", good, bad)
    if done is None or done.returncode:
        raise UsageError(
            f"{good[:12]} is no ancestor of {bad[:12]}; name a good revision that came before the bad one"
        )
    listed = _run(repository.top, "rev-list", "--first-parent", "--reverse", f"{good}..{bad}")
    return listed.split()


def subject_of(repository: Repository, commit: str) -> str:
    """The first line of a commit's message."""
    return _run(repository.top, "log", "-1", "--format=%s", commit).strip()


def check_out(repository: Repository, name: str, commit: str, folder: Path) -> Checkout:
    """Puts `commit` into `folder`, a repository of its own that borrows the objects of the checkout.

    Not `git worktree add`: that writes into the checkout's .git, where a killed program would leave it.

    Raises:
        UsageError: git could not do it.
    """
    objects = _run(repository.top, "rev-parse", "--path-format=absolute", "--git-path", "objects").strip()
    shallow = Path(
        _run(repository.top, "rev-parse", "--path-format=absolute", "--git-path", "shallow").strip()
    )
    folder.mkdir(parents=True)
    _run(folder, "init", "--quiet", ".")
    (folder / ".git/objects/info/alternates").write_text(f"{objects}\n", encoding="utf-8")
    if shallow.exists():
        shutil.copy(shallow, folder / ".git/shallow")
    # Tools that read their version from tags find the same ones.
    for line in _run(
        repository.top, "for-each-ref", "--format=%(refname) %(objectname)", "refs/tags"
    ).splitlines():
        _git(folder, "update-ref", *line.split())
    _run(folder, "-c", "advice.detachedHead=false", "checkout", "--quiet", "--detach", commit)
    return Checkout(name, commit, folder, repository.below)


def import_roots(repository: Repository, checkout: Checkout, path: Sequence[str]) -> list[str]:
    """The folders of `checkout` that stand for those of the working checkout on the import path `path`.

    A project that is installed in editable mode is imported from the checkout that is worked in; these go before.
    """
    roots = [checkout.top / "src", checkout.folder / "src"]
    for entry in path:
        place = Path(entry or ".").resolve()
        if place.is_relative_to(repository.top) and "site-packages" not in place.parts:
            roots.append(checkout.top / place.relative_to(repository.top))
    return [str(root) for root in dict.fromkeys([*roots, checkout.top]) if root.is_dir()]


def _run(folder: str | os.PathLike[str], *words: str) -> str:
    done = _git(folder, *words)
    if done is None or done.returncode:
        why = "git did not answer" if done is None else done.stderr.strip() or f"exit code {done.returncode}"
        raise UsageError(f"git {words[0]} failed in {folder}: {why}")
    return done.stdout


def _git(folder: str | os.PathLike[str], *words: str) -> subprocess.CompletedProcess[str] | None:
    """One git command; None where there is no git, or it does not answer."""
    try:
        return subprocess.run(
            ["git", "-C", Path(folder), *words],
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=_GIT_S,
            check=False,
            env=_own_variables(),
        )
    except (OSError, subprocess.TimeoutExpired):
        return None


def _own_variables() -> dict[str, str]:
    """The environment without git's own: inside a hook they name the repository of the hook, whatever the folder."""
    return {
        name: value
        for name, value in os.environ.items()
        if name not in {"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"}
    }
