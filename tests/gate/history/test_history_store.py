import itertools
import sqlite3

import pytest

from pytest_membudget.errors import UnreadableFileError, UsageError
from pytest_membudget.gate import history as store
from pytest_membudget.gate.history import open_history
from pytest_membudget.records.report import Environment, Report, TestRecord

MIB = 2**20


def report(peaks, *, revision="", created="", **environment):
    return Report(
        revision=revision,
        created=created,
        environment=Environment(system="Linux", **environment),
        tests=tuple(
            TestRecord(nodeid=name, outcome="passed", peak_bytes=peak, samples_bytes=(peak + 1, peak))
            for name, peak in peaks.items()
        ),
    )


def kept(path):
    with open_history(path) as history:
        return [run.revision for run in history.runs()], {
            name: [point.peak_bytes for point in history.test(name).points] for name in history.nodeids()
        }


def test_what_was_added_comes_back_in_the_order_given(tmp_path):
    path = tmp_path / "h.sqlite"
    with open_history(path, create=True) as history:
        history.add(report({"a": 3, "b": 5}, revision="r1", cores=2))
        history.add(report({"a": 4}, revision="r0"))
    assert kept(path) == (["r1", "r0"], {"a": [3, 4], "b": [5]})
    with open_history(path) as history:
        assert [run.environment.cores for run in history.runs()] == [2, 0]
        assert [run.tests for run in history.runs()] == [2, 1]
        assert history.test("a").points[0].samples_bytes == (3, 4)
        assert [tuple(each) for each in history.series()] == [("a", [0, 1], [3, 4]), ("b", [0], [5])]


def test_a_run_twice_is_a_run_once_and_another_revision_another_run(tmp_path):
    with open_history(tmp_path / "h", create=True) as history:
        assert [history.add(report({"a": 3}), each) for each in ("r1", "r1", "r2")] == [True, False, True]
        assert len(history.runs()) == 2


def test_the_revision_that_is_given_beats_that_of_the_report(tmp_path):
    with open_history(tmp_path / "h", create=True) as history:
        history.add(report({"a": 3}, revision="its own"), "given")
        assert history.runs()[0].revision == "given"


def test_tests_that_did_not_pass_are_not_kept(tmp_path):
    tests = tuple(
        TestRecord(nodeid=f"{outcome}", outcome=outcome, peak_bytes=peak)
        for outcome, peak in [
            ("failed", 1),
            ("error", 1),
            ("skipped", None),
            ("passed", None),
            ("xfailed", 7),
        ]
    )
    with open_history(tmp_path / "h", create=True) as history:
        history.add(Report(tests=tests))
        assert history.nodeids() == ("xfailed",)


def test_shards_merge_whichever_comes_first(tmp_path):
    shards = [tmp_path / "one", tmp_path / "two"]
    for number, path in enumerate(shards):
        with open_history(path, create=True) as history:
            for day in range(3):
                created = f"2026-11-0{day + 1}T00:0{number}"
                history.add(report({f"t{number}": day}, revision=f"r{day}", created=created))
    for order in itertools.permutations(shards):
        target = tmp_path / order[0].with_suffix(".all").name
        with open_history(target, create=True) as history:
            for path in (*order, order[0]):
                with open_history(path) as other:
                    history.merge(other)
        revisions, peaks = kept(target)
        assert revisions == ["r0", "r0", "r1", "r1", "r2", "r2"]
        assert peaks == {"t0": [0, 1, 2], "t1": [0, 1, 2]}


def test_a_part_of_a_name_finds_its_test_where_only_one_has_it(tmp_path):
    with open_history(tmp_path / "h", create=True) as history:
        history.add(report({"t.py::test_parse": 1, "t.py::test_join": 2}))
        assert history.test("parse").nodeid == "t.py::test_parse"
        with pytest.raises(UsageError, match=r"2 tests .* have 'test_'"):
            history.test("test_")
        with pytest.raises(UsageError, match="no test with 'nothing'"):
            history.test("nothing")


def test_names_that_are_no_text_are_kept_escaped(tmp_path):
    with open_history(tmp_path / "h", create=True) as history:
        history.add(report({"t_\udcff.py::test": 1}), "r\udcff")
        assert history.nodeids() == (r"t_\udcff.py::test",)


def test_a_full_disk_loses_nothing_that_was_there(tmp_path):
    path = tmp_path / "h"
    with open_history(path, create=True) as history:
        history.add(report({"a": 1}), "r1")
    with pytest.raises(OSError, match="full"), open_history(path, create=True) as history:
        history._connection.execute("PRAGMA max_page_count = 1")
        history.add(report({f"test_{n:0200}": n for n in range(500)}), "r2")
    assert kept(path) == (["r1"], {"a": [1]})


def test_an_older_file_is_brought_up_to_date_and_a_newer_one_refused(tmp_path, monkeypatch):
    path = tmp_path / "h"
    with open_history(path, create=True) as history:
        history.add(report({"a": 1}), "r1")
    newer = (*store.MIGRATIONS, "ALTER TABLE runs ADD COLUMN branch TEXT NOT NULL DEFAULT 'main'")
    monkeypatch.setattr(store, "MIGRATIONS", newer)
    with open_history(path) as history:
        assert history._connection.execute("SELECT branch FROM runs").fetchall() == [("main",)]
    monkeypatch.undo()
    with (
        pytest.raises(UnreadableFileError, match=r"version 2 .* reads version 1; upgrade"),
        open_history(path),
    ):
        pass


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"not a database at all, but long enough to be looked at" * 30, "not a database"),
        (b"", "it is empty"),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path, content, told):
    path = tmp_path / "h"
    path.write_bytes(content)
    with pytest.raises(UnreadableFileError, match=told), open_history(path):
        pass


def test_the_database_of_another_program_is_left_alone(tmp_path):
    path = tmp_path / "h"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    with pytest.raises(UnreadableFileError, match="another program"), open_history(path, create=True):
        pass


def test_a_missing_history_is_not_made_by_reading(tmp_path):
    with pytest.raises(FileNotFoundError, match="no history"), open_history(tmp_path / "h"):
        pass
    assert not (tmp_path / "h").exists()


def test_a_history_that_may_only_be_read_is_read(tmp_path):
    path = tmp_path / "h"
    with open_history(path, create=True) as history:
        history.add(report({"a": 1}), "r1")
    path.chmod(0o444)
    assert kept(path)[0] == ["r1"]
