import pytest

from pytest_membudget.cli import main


def test_the_file_is_written_and_described(tmp_path, capsys):
    assert main(["synthesize", str(tmp_path / "rows.csv"), "--size", "10 kB", "--seed", "3"]) == 0
    assert (tmp_path / "rows.csv").stat().st_size == 10_000
    assert "rows.csv: 10,000 B, " in capsys.readouterr().out


@pytest.mark.parametrize(
    "size, part", [("10", "no unit"), ("3 B", "the smallest has"), ("-1 B", "not a size")]
)
def test_a_size_that_cannot_be_made_is_a_usage_error(size, part, tmp_path, capsys):
    assert main(["synthesize", str(tmp_path / "rows.csv"), f"--size={size}"]) == 2
    assert part in capsys.readouterr().err
    assert not (tmp_path / "rows.csv").exists()


def test_a_folder_that_is_missing_is_a_usage_error(tmp_path, capsys):
    assert main(["synthesize", str(tmp_path / "none" / "rows.csv"), "--size", "1 kB"]) == 2
    assert "No such file or directory" in capsys.readouterr().err


def test_an_unknown_kind_is_a_usage_error_that_lists_the_kinds(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["synthesize", str(tmp_path / "rows"), "--size", "1 kB", "--kind", "cvs"])
    assert "jsonl" in capsys.readouterr().err
