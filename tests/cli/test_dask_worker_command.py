"""`membudget dask-worker`: the command that it becomes, with a scripted limit."""

import pytest

from pytest_membudget.cli import executors, main
from pytest_membudget.errors import UsageError
from pytest_membudget.records.measurement import MemoryLimit


@pytest.fixture
def ten_gb(monkeypatch):
    monkeypatch.setattr(executors, "memory_limit", lambda: MemoryLimit(bytes=10_000_000_000, source="test"))


def option(command, name):
    return command[command.index(name) + 1]


def test_workers_share_the_limit_less_its_reserve(ten_gb):
    command = executors.worker_command("tcp://10.0.0.1:8786", 4, None, [])
    assert option(command, "--resources") == "MEMORY=2000000000"
    assert option(command, "--memory-limit") == "2500000000"
    assert option(command, "--nthreads") == "1"
    assert option(command, "--nworkers") == "4"
    assert "tcp://10.0.0.1:8786" in command


def test_a_given_size_is_what_tasks_may_take(ten_gb):
    command = executors.worker_command("tcp://10.0.0.1:8786", 2, "4 GB", ["--local-directory", "/scratch"])
    assert option(command, "--resources") == "MEMORY=2000000000"
    assert option(command, "--memory-limit") == "2500000000"
    assert command[-2:] == ["--local-directory", "/scratch"]


def test_a_scheduler_file_is_passed_as_such(ten_gb, tmp_path):
    path = tmp_path / "scheduler.json"
    path.write_text("{}")
    assert option(executors.worker_command(str(path), 1, None, []), "--scheduler-file") == str(path)


def test_nonsense_is_named_with_both_numbers(ten_gb, capsys):
    with pytest.raises(UsageError, match=r"18\.6 GiB.*9\.31 GiB"):
        executors.worker_command("tcp://10.0.0.1:8786", 1, "20 GB", [])
    assert main(["dask-worker", "tcp://10.0.0.1:8786", "--nworkers", "0"]) == 2
    assert "--nworkers is 0" in capsys.readouterr().err
