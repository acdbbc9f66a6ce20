import json

import pytest

from pytest_membudget import MemorySemaphore
from pytest_membudget.cli import main

MB = 1_000_000


@pytest.fixture(autouse=True)
def host_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("MEMBUDGET_HOST_DIRECTORY", str(tmp_path / "host"))


def test_without_programs_the_budget_of_this_machine_is_shown(capsys):
    assert main(["host"]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith("budget default: ")
    assert first.endswith("0 B reserved, " + first.split(", ")[2] + ", 0 programs")


def test_who_holds_and_who_waits_is_shown_in_their_order(capsys):
    one = MemorySemaphore("1 GB", scope="host", name="nightly", label="import\x1b[31m of\nthe night")
    other = MemorySemaphore("1 GB", scope="host", name="nightly", label="report")
    with one.reserve("700 MB") as lease:
        waiting = other._submit(600 * MB, exclusive=False)
        assert main(["host", "--name", "nightly"]) == 0
        first, holds, waits = capsys.readouterr().out.splitlines()[:3]
        assert first == "budget nightly: 954 MiB, 668 MiB reserved, 286 MiB free, 1 program"
        assert holds.startswith("  holds   668 MiB  for ")
        assert holds.endswith(r"import\x1b[31m of\nthe night")
        assert waits.startswith("  waits   572 MiB  for ")
        assert waits.endswith("report")
        lease.charge("800 MB")
        main(["host", "--name", "nightly"])
        assert "seen at 763 MiB" in capsys.readouterr().out
    other._scope.release(waiting)


def test_the_record_can_be_had_as_json(capsys):
    with MemorySemaphore("1 GB", scope="host", label="job").reserve("700 MB"):
        assert main(["host", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["name"], record["ceiling_bytes"], record["reserved_bytes"]) == (
        "default",
        1000 * MB,
        700 * MB,
    )
    (request,) = record["requests"]
    assert (request["label"], request["bytes"], request["granted"]) == ("job", 700 * MB, True)


def test_an_unreadable_state_is_one_sentence_and_code_2(tmp_path, capsys):
    main(["host"])
    (path,) = (tmp_path / "host").glob("*.json")
    path.write_text("[" * 100)
    assert main(["host"]) == 2
    assert "is not a host ledger of this version" in capsys.readouterr().err
