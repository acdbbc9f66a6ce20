import subprocess

import pytest


class Project:
    """A git repository whose commits are made by `commit(file=text, …)`."""

    def __init__(self, folder):
        self.folder = folder
        self.git("init", "-q", ".")

    def git(self, *words):
        identity = ("-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false")
        done = subprocess.run(
            ["git", *identity, *words], cwd=self.folder, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    def commit(self, **files):
        for name, text in files.items():
            (self.folder / f"{name}.py").write_text(text)
        self.git("add", ".")
        self.git("commit", "-qm", " ".join(files))
        return self.git("rev-parse", "HEAD")


@pytest.fixture
def project(tmp_path, monkeypatch):
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return Project(folder)
