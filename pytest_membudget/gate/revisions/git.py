"""What git knows: the revision that is checked out."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

#: Where CI services say which commit they run, for checkouts without git.
_CI_VARIABLES = (
    "GITHUB_SHA",
    "CI_COMMIT_SHA",
    "GIT_COMMIT",
    "BITBUCKET_COMMIT",
    "CIRCLE_SHA1",
    "BUILD_VCS_NUMBER",
)
_GIT_S = 60.0


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
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
