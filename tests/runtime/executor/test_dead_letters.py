"""Failed inputs on disk: written as they fail, read with suspicion, run again from the shell."""

import enum
import functools
import os
from pathlib import Path

import executor_jobs as jobs
import msgspec
import pytest

from pytest_membudget import ExecutorPolicy, FallbackExecutor, UnreadableFileError, UsageError
from pytest_membudget.cli import main
from pytest_membudget.records.run import Outcome
from pytest_membudget.runtime.executor import dead_letters

FULL_DISK = ExecutorPolicy(dead_letters="/dev/full", timeout_s=None)


def letter(item):
    return dead_letters.letter_of(
        jobs.file_size, Outcome(item=item, error=ValueError("wrong \udcff"), cause="error")
    )


@pytest.mark.parametrize(
    "item",
    [
        "data/a.csv",
        Path("data/a.csv"),
        b"data/\xff.csv",
        os.fsdecode(b"data/\xff.csv"),
        Path(os.fsdecode(b"data/\xff.csv")),
        7,
        2.5,
        None,
        True,
        {"rows": [1, 2]},
        ("a.csv", ";"),
        [("a.csv", {"sep": ";", 1: (2, [])}), float("-inf"), b"\x00"],
        {("a", 1): Path("b"), "tuple": [1]},
        "line\nbreak\u2028",
    ],
)
def test_an_input_comes_back_as_it_was(tmp_path, item):
    path = tmp_path / "letters.jsonl"
    dead_letters.append(path, letter(item))
    (read,) = dead_letters.read(path)
    assert path.read_bytes().count(b"\n") == 1
    assert dead_letters.item_of(read) == item
    assert type(dead_letters.item_of(read)) is type(item)


@pytest.mark.processes
@pytest.mark.parametrize("level", ["process", "thread", "sequential"])
def test_inputs_and_errors_whose_text_raises_end_no_batch(tmp_path, level):
    policy = ExecutorPolicy(dead_letters=tmp_path / "failed.jsonl")
    for fn in (jobs.raise_speechless, jobs.raise_speechless_unpicklable):
        with FallbackExecutor(1, levels=(level,), policy=policy) as executor:
            batch = executor.run(fn, [jobs.Speechless(), "b.csv"])
        assert "b.csv: " in str(batch)
        assert "Speechless, whose text raises ValueError" in str(batch)
    assert len(dead_letters.read(tmp_path / "failed.jsonl")) == 4


def test_an_input_that_is_no_data_is_kept_for_the_reader_only(tmp_path):
    path = tmp_path / "letters.jsonl"
    dead_letters.append(path, letter(object()))
    (read,) = dead_letters.read(path)
    with pytest.raises(UnreadableFileError, match="neither a path nor plain data"):
        dead_letters.item_of(read)


@pytest.mark.parametrize(
    "line", [b"not json", b"{}", b'{"format": "other"}', b"\xff\xfe", b"[" * 100_000, b'"text"']
)
def test_a_line_of_somebody_elses_is_refused(tmp_path, line):
    path = tmp_path / "letters.jsonl"
    dead_letters.append(path, letter("a"))
    with path.open("ab") as stream:
        stream.write(line + b"\n")
    with pytest.raises(UnreadableFileError, match="line 2"):
        dead_letters.read(path)


@pytest.mark.parametrize(("kind", "item"), [("bytes", "%"), ("path", 7), ("text", [1]), ("bytes", None)])
def test_an_item_that_is_not_of_its_kind_is_refused(kind, item):
    forged = dead_letters.DeadLetter(
        function="m:f", kind=kind, item=item, is_base64=kind == "bytes", cause="error"
    )
    with pytest.raises(UnreadableFileError, match="is not"):
        dead_letters.item_of(forged)


def test_a_place_that_cannot_be_written_fails_before_anything_runs(tmp_path):
    policy = ExecutorPolicy(dead_letters=tmp_path / "missing" / "letters.jsonl")
    ran = []
    with (
        FallbackExecutor(1, levels=("sequential",), policy=policy) as executor,
        pytest.raises(UsageError, match="dead_letters"),
    ):
        executor.run(ran.append, [1])
    assert not ran


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a file that is always full")
def test_a_full_disk_costs_letters_but_no_outcome(tmp_path, caplog):
    names = [str(tmp_path / f"{number}.txt") for number in range(6)]
    for name in names[:4]:
        Path(name).write_text("four")
    with FallbackExecutor(2, levels=("thread",), policy=FULL_DISK) as executor:
        batch = executor.run(jobs.file_size, names)
    assert [outcome.value for outcome in batch.outcomes] == [4, 4, 4, 4, None, None]
    assert [outcome.item for outcome in batch.dead_letters] == names[4:]
    (caveat,) = batch.caveats
    assert caveat.startswith("2 failed inputs could not be added to /dev/full (No space left on device)")
    assert [record.getMessage().split(":")[0] for record in caplog.records] == ["dead letters"]


def test_a_disk_that_fills_up_leaves_no_half_line(tmp_path, monkeypatch):
    path = tmp_path / "letters.jsonl"
    dead_letters.append(path, letter("first"))
    write = os.write

    def fills_up(descriptor, data):
        if len(data) < 100:
            raise OSError(28, "No space left on device")
        return write(descriptor, data[:-50])

    monkeypatch.setattr(os, "write", fills_up)
    with pytest.raises(OSError, match="No space"):
        dead_letters.append(path, letter("second"))
    monkeypatch.undo()
    dead_letters.append(path, letter("third"))
    assert [each.item for each in dead_letters.read(path)] == ["first", "third"]


def test_run_writes_what_failed_and_retry_runs_it_again(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = [f"{number}.txt" for number in range(6)]
    for name in names[:4]:
        Path(name).write_text(name)
    policy = ExecutorPolicy(dead_letters="letters.jsonl")
    with FallbackExecutor(2, levels=("thread",), policy=policy) as executor:
        batch = executor.run(jobs.file_size, names)
    assert [outcome.item for outcome in batch.dead_letters] == names[4:]
    assert batch.dead_letters_path == "letters.jsonl"
    assert {each.function for each in dead_letters.read("letters.jsonl")} == {"executor_jobs:file_size"}

    Path("4.txt").write_text("here now")
    assert main(["retry", "letters.jsonl", "executor_jobs:file_size"]) == 1
    assert "1 of 2 inputs succeeded" in capsys.readouterr().out
    assert [each.item for each in dead_letters.read("letters.jsonl")] == ["5.txt"]

    Path("5.txt").write_text("here now")
    assert main(["retry", "letters.jsonl", "executor_jobs:file_size"]) == 0
    assert dead_letters.read("letters.jsonl") == []


@pytest.mark.processes
def test_an_input_that_kills_its_worker_again_leaves_the_retry_alive(tmp_path, capsys):
    path = tmp_path / "letters.jsonl"
    outcome = Outcome(item=1, error=ValueError("killed"), cause="killed")
    dead_letters.append(path, dead_letters.letter_of(jobs.die, outcome))
    assert main(["retry", str(path), "executor_jobs:die"]) == 1
    assert "0 of 1 inputs succeeded" in capsys.readouterr().out
    assert len(dead_letters.read(path)) == 1


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("executor_jobs:square", "holds inputs of executor_jobs:file_size"),
        ("executor_jobs", "not MODULE:FUNCTION"),
    ],
)
def test_retry_refuses_another_function(tmp_path, capsys, name, words):
    path = tmp_path / "letters.jsonl"
    dead_letters.append(path, letter("a"))
    before = path.read_bytes()
    assert main(["retry", str(path), name]) == 2
    assert words in capsys.readouterr().err
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("name", "words"), [("no_such_module:f", "cannot be imported"), ("executor_jobs:STATE", "not a function")]
)
def test_retry_names_what_cannot_be_called(tmp_path, capsys, name, words):
    path = tmp_path / "letters.jsonl"
    dead_letters.append(
        path,
        dead_letters.letter_of(jobs.square, Outcome(item=1, error=ValueError(), cause="error"), name=name),
    )
    assert main(["retry", str(path), name]) == 2
    assert words in capsys.readouterr().err


def test_a_missing_file_is_a_usage_error(tmp_path, capsys):
    assert main(["retry", str(tmp_path / "none.jsonl"), "executor_jobs:square"]) == 2
    assert "none.jsonl" in capsys.readouterr().err


class Text(str):
    """As numpy, lxml and bs4 have them."""

    __slots__ = ()

    def __str__(self):
        raise ValueError("mine")


class Colour(enum.IntEnum):
    RED = 1


class Refuses:
    def __eq__(self, other):
        raise ValueError("mine")

    __hash__ = None

    def __fspath__(self):
        raise SystemExit(5)

    def __repr__(self):
        raise SystemExit(5)


def test_a_kind_of_text_comes_back_as_its_text(tmp_path):
    path = tmp_path / "letters.jsonl"
    dead_letters.append(path, letter(Text("a.csv")))
    (read,) = dead_letters.read(path)
    assert (dead_letters.item_of(read), type(dead_letters.item_of(read))) == ("a.csv", str)
    assert read.item_type.endswith("Text")


@pytest.mark.parametrize("item", [Colour.RED, (1, Colour.RED), Refuses(), {"a": Refuses()}])
def test_what_no_file_can_give_back_is_kept_for_the_reader(tmp_path, item):
    path = tmp_path / "letters.jsonl"
    dead_letters.append(path, letter(item))
    (read,) = dead_letters.read(path)
    assert "cannot be run again" in dead_letters.refusal(read)


def test_the_exceptions_own_type_text_and_traceback_are_kept(tmp_path):
    try:
        jobs.file_size("missing.csv")
    except OSError as error:
        failed = Outcome(item="missing.csv", error=error, cause="error")
    read = dead_letters.letter_of(jobs.file_size, failed)
    assert (read.error_type, "missing.csv" in read.error) == ("FileNotFoundError", True)
    assert "executor_jobs.py" in read.traceback


def test_an_item_too_large_for_a_line_is_told_and_spoils_no_other(tmp_path):
    path = tmp_path / "letters.jsonl"
    for item in ("x" * (dead_letters.LARGEST_LINE_BYTES + 1), "small"):
        dead_letters.append(path, letter(item))
    large, small = dead_letters.read(path)
    assert "more than the 16.0 MiB of a line" in dead_letters.refusal(large)
    assert dead_letters.item_of(small) == "small"


def test_a_torn_line_is_counted_and_the_others_are_read(tmp_path):
    path = tmp_path / "letters.jsonl"
    dead_letters.append(path, letter("first"))
    with path.open("ab") as stream:
        stream.write(dead_letters.encode_line(letter("torn"))[:60])
    dead_letters.append(path, letter("third"))
    found = dead_letters.read_all(path)
    assert ([each.item for each in found.letters], found.torn) == (["first", "third"], (2,))


def test_what_is_added_while_others_are_run_again_stays(tmp_path):
    path = tmp_path / "letters.jsonl"
    dead_letters.append(path, letter("old"))
    old = dead_letters.read(path)
    dead_letters.append(path, letter("new"))
    dead_letters.replace(path, old, [])
    assert [each.item for each in dead_letters.read(path)] == ["new"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with a name are POSIX's")
def test_a_pipe_is_refused_before_anything_runs(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="is a pipe"):
        dead_letters.check_writable(tmp_path / "pipe")
    with pytest.raises(UnreadableFileError, match="not a plain file"):
        dead_letters.read(tmp_path / "pipe")


@pytest.mark.processes
def test_retry_runs_what_it_can_and_names_what_it_cannot(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = Path("letters.jsonl")
    failed = Outcome(item=("here.txt", "rb"), error=ValueError(), cause="error")
    fn = functools.partial(jobs.size_of_opened, suffix="")
    for item in (("here.txt", "rb"), object(), "here.txt"):
        dead_letters.append(path, dead_letters.letter_of(fn, msgspec.structs.replace(failed, item=item)))
    with path.open("ab") as stream:
        stream.write(b'{"format":"membudget-dead-letter","ver\x1b[31m')
    Path("here.txt").write_text("four")
    command = ["retry", "letters.jsonl", "executor_jobs:size_of_opened"]
    assert main([*command, "--initializer", "executor_jobs:open_the_door"]) == 1
    said = capsys.readouterr().out
    assert "2 of 2 inputs succeeded" in said
    assert "not run: the item '<object object" in said
    assert "line 4 is torn" in said
    assert "\x1b" not in said
    assert [each.kind for each in dead_letters.read(path)] == ["opaque"]
