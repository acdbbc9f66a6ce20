from pathlib import Path

from pytest_membudget.records.places import from_here


def test_what_lies_below_the_working_directory_is_told_from_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert from_here(tmp_path / "out" / "a.md") == str(Path("out", "a.md"))
    assert from_here(Path("a.md")) == "a.md"
    assert from_here("/elsewhere/a.md") == "/elsewhere/a.md"
