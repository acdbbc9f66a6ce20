import pytest

from pytest_membudget.errors import UsageError
from pytest_membudget.gate.revisions import git
from pytest_membudget.gate.revisions.git import (
    check_out,
    commit_of,
    commits_between,
    current_revision,
    find_repository,
    import_roots,
)


def test_a_revision_is_checked_out_beside_and_nothing_is_written_to_the_checkout(project, tmp_path):
    project.commit(a="old")
    project.git("tag", "v1")
    project.commit(a="new")
    (project.folder / "a.py").write_text("mine, not committed")
    before = sorted(map(str, project.folder.rglob("*")))
    repository = find_repository(project.folder)
    old = check_out(repository, "v1", commit_of(repository, "v1"), tmp_path / "old")
    assert (old.folder / "a.py").read_text() == "old"
    assert git._run(old.top, "describe", "--tags").strip() == "v1"
    assert sorted(map(str, project.folder.rglob("*"))) == before
    assert project.git("worktree", "list").count("\n") == 0


def test_a_place_below_the_top_is_kept(project, tmp_path):
    (project.folder / "sub").mkdir()
    (project.folder / "sub" / "x.py").write_text("")
    project.commit(a="")
    repository = find_repository(project.folder / "sub")
    checkout = check_out(repository, "HEAD", commit_of(repository, "HEAD"), tmp_path / "c")
    assert checkout.folder == tmp_path / "c" / "sub"
    path = [str(project.folder / "sub"), "/elsewhere"]
    assert import_roots(repository, checkout, path) == [str(checkout.folder), str(checkout.top)]


@pytest.mark.parametrize("name", ["none", "--help", "HEAD~9"])
def test_a_name_that_is_no_commit_is_refused(project, name):
    project.commit(a="")
    with pytest.raises(UsageError, match="this checkout has no commit"):
        commit_of(find_repository(project.folder), name)


def test_outside_of_a_checkout_is_a_sentence(tmp_path):
    with pytest.raises(UsageError, match="lies in no git checkout"):
        find_repository(tmp_path)


def test_commits_between_two_are_in_order_without_the_first(project):
    commits = [project.commit(a=str(number)) for number in range(4)]
    repository = find_repository(project.folder)
    assert commits_between(repository, commits[0], commits[3]) == commits[1:]
    with pytest.raises(UsageError, match="is no ancestor"):
        commits_between(repository, commits[3], commits[0])


def test_the_revision_comes_from_the_service_where_there_is_no_git(tmp_path, monkeypatch):
    for name in git._CI_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert current_revision(tmp_path) == ""
    monkeypatch.setenv("CI_COMMIT_SHA", "abc")
    assert current_revision(tmp_path) == "abc"


def test_the_revision_is_the_commit_and_says_where_files_differ(project):
    head = project.commit(a="1")
    assert current_revision(project.folder) == head
    (project.folder / "a.py").write_text("2")
    assert current_revision(project.folder) == f"{head}+changed"


def test_without_git_there_is_no_repository(project, monkeypatch):
    project.commit(a="1")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UsageError, match="git was not found"):
        find_repository(project.folder)


def test_a_git_command_that_fails_says_why(project):
    project.commit(a="1")
    with pytest.raises(UsageError, match=r"git log failed in .*: fatal: ambiguous argument"):
        git._run(project.folder, "log", "nothing")
