import contextlib
import os
import re
import sys
import tracemalloc

import polars
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strict_readers import COUNT

from pytest_membudget import KINDS, synthesize
from pytest_membudget.errors import MissingExtraError

TEXT_KINDS = [kind for kind in KINDS if kind != "parquet"]


def smallest_size(folder, kind):
    with pytest.raises(ValueError, match=f"0 B cannot hold a valid {kind} file") as refused:
        synthesize(folder / "none", 0, kind)
    return int(re.search(r"the smallest has (\d+) B", str(refused.value))[1])


def test_every_kind_has_a_strict_reader_here():
    assert sorted(COUNT) == sorted(KINDS)


@pytest.mark.parametrize("kind", TEXT_KINDS)
def test_any_size_from_the_smallest_on_is_exact_and_valid(kind, tmp_path_factory):
    folder = tmp_path_factory.mktemp(kind)
    smallest = smallest_size(folder, kind)

    @given(above=st.integers(0, 3000), seed=st.integers(0, 3))
    @settings(max_examples=60, deadline=None)
    def exact_and_valid(above, seed):
        made = synthesize(folder / "file", smallest + above, kind, seed)
        assert made.path.stat().st_size == made.size_bytes == smallest + above
        assert COUNT[kind](made.path) == made.rows

    exact_and_valid()


@pytest.mark.parametrize("kind", TEXT_KINDS)
def test_a_file_of_many_blocks_is_exact_and_no_identifier_repeats(kind, tmp_path):
    made = synthesize(tmp_path / "file", "1.3 MB", kind)
    assert made.path.stat().st_size == made.size_bytes == 1_300_000
    assert COUNT[kind](made.path) == made.rows > 1000


@pytest.mark.parametrize("kind", TEXT_KINDS)
def test_one_byte_less_than_the_smallest_is_refused_and_the_old_file_stays(kind, tmp_path):
    smallest = smallest_size(tmp_path, kind)
    (tmp_path / "file").write_text("old")
    with pytest.raises(ValueError, match=f"the smallest has {smallest} B"):
        synthesize(tmp_path / "file", smallest - 1, kind)
    assert (tmp_path / "file").read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("size", [2_000, 20_000, 145_000, 146_000, 147_000, 1_000_000, 3_000_001])
def test_parquet_has_the_asked_size_too(size, tmp_path):
    made = synthesize(tmp_path / "file", size, "parquet")
    assert made.path.stat().st_size == made.size_bytes == size
    assert COUNT["parquet"](made.path) == polars.read_parquet(made.path).height == made.rows


def test_parquet_too_small_for_one_row_names_the_smallest(tmp_path):
    smallest = smallest_size(tmp_path, "parquet")
    assert synthesize(tmp_path / "file", smallest, "parquet").rows == 1


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'pytest-membudget\[parquet\]'"):
        synthesize(tmp_path / "file", "1 MB", "parquet")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("kind", KINDS)
def test_the_seed_decides_every_byte(kind, tmp_path):
    first, again, other = (
        synthesize(tmp_path / name, "30 kB", kind, seed).path.read_bytes()
        for name, seed in (("first", 1), ("again", 1), ("other", 2))
    )
    assert first == again != other


@pytest.mark.parametrize("kind", TEXT_KINDS)
def test_records_are_varied(kind, tmp_path):
    lines = synthesize(tmp_path / "file", "100 kB", kind).path.read_bytes().splitlines()
    without_identifier = {re.sub(rb"\d{14}", b"", line) for line in lines}
    assert len(without_identifier) > 0.95 * len(lines)


@pytest.mark.parametrize("kind", TEXT_KINDS)
def test_memory_is_flat_in_the_size(kind, tmp_path):
    tracemalloc.start()
    try:
        synthesize(tmp_path / "file", "12 MB", kind)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 4_000_000


@pytest.mark.parametrize(
    ("name", "kind"), [("a.json", "json"), ("a.JSONL", "jsonl"), ("a.dat", "csv"), ("a", "csv")]
)
def test_the_name_says_the_kind_where_nothing_else_does(name, kind, tmp_path):
    assert synthesize(tmp_path / name, "10 kB").kind == kind
    assert synthesize(tmp_path / name, "10 kB", kind="xml").kind == "xml"


def test_an_unknown_kind_lists_the_kinds(tmp_path):
    with pytest.raises(
        ValueError, match=r"'cvs' is not a kind .* csv, json, jsonl, xml, html, text, smiles, parquet"
    ):
        synthesize(tmp_path / "file", "1 MB", "cvs")


def test_a_size_without_unit_shows_a_spelling(tmp_path):
    with pytest.raises(ValueError, match="200 MiB"):
        synthesize(tmp_path / "file", "20")


def test_an_interrupted_file_leaves_the_old_one_alone(tmp_path, monkeypatch):
    from pytest_membudget.inputs import synthesis

    def interrupted(stream, *_):
        stream.write(b"half")
        raise KeyboardInterrupt

    (tmp_path / "file").write_text("old")
    monkeypatch.setattr(synthesis, "write_document", interrupted)
    with contextlib.suppress(KeyboardInterrupt):
        synthesize(tmp_path / "file", "1 MB")
    assert (tmp_path / "file").read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_only_plain_files_are_replaced(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="not a plain file"):
        synthesize(tmp_path / "folder", "1 kB")
    with pytest.raises(OSError, match="not a plain file"):
        synthesize("/dev/null", "1 kB")
