"""Names and messages from outside, on terminals and in the logs of CI services."""

import shutil
import subprocess
import sys

import pytest

from pytest_membudget import measuring
from pytest_membudget.cli import main
from pytest_membudget.records.report import Report, TestRecord
from pytest_membudget.report.terminal import render_terminal
from pytest_membudget.report.text import without_commands
from pytest_membudget.report.writing import write_report

COMMANDS = ["::add-mask::a", "  ::set-env name=A::b", "x ##[group]y", "\n::warning::z"]


def obeyed(text):
    """The lines that GitHub's runner would obey."""
    return [line for line in text.splitlines() if line.lstrip().startswith("::") or "##[" in line]


@pytest.mark.parametrize("text", COMMANDS)
def test_no_line_is_a_command(text):
    assert obeyed(text)
    assert not obeyed(without_commands(text))


def test_other_text_stays_as_it_is():
    text = "tests/a.py::test_b[::] 3 #[x]\n  a :: b\n"
    assert without_commands(text) == text


@pytest.mark.parametrize("form", ["text", "markdown", "step-summary", "json"])
def test_the_report_of_another_commands_nothing(tmp_path, capsys, form):
    hostile = Report(
        tests=tuple(
            TestRecord(
                nodeid=f"{text}\x1b[31m\x9b", outcome="failed", verdict="over", message=f"{text}\n{text}"
            )
            for text in COMMANDS
        )
    )
    write_report(hostile, tmp_path / "run.json")
    assert main(["report", str(tmp_path / "run.json"), "--format", form]) == 0
    said = capsys.readouterr().out
    assert not obeyed(said)
    assert not any(sign in said for sign in "\x1b\x9b")


def test_a_name_that_is_wrapped_begins_no_command():
    record = TestRecord(nodeid="a" * 38 + "::add-mask::b", outcome="failed", verdict="over", message="over")
    for width in range(30, 60):
        assert not obeyed(render_terminal(Report(tests=(record,)), width=width))


def test_an_error_of_the_commands_own_is_fit_for_a_terminal(capsys, tmp_path):
    (tmp_path / "bad.json").write_text('{"format": "\\u001b[31m"}')
    assert main(["report", str(tmp_path / "bad.json")]) == 2
    assert main(["report", "no\x1b[31msuch.json"]) == 2
    assert "\x1b" not in capsys.readouterr().err


@pytest.mark.kernel
@pytest.mark.skipif(sys.platform != "linux", reason="a process is named after its program")
def test_a_process_that_names_itself_writes_no_escape_sequence(tmp_path):
    program = tmp_path / "a\x1b[31m"
    program.symlink_to(shutil.which("sleep"))
    with measuring() as probe:
        subprocess.run([program, "0.3"], check=True)
    names = [share.name for share in probe.measurement.shares]
    assert "a\\x1b[31m" in names
    assert not any("\x1b" in name for name in names)
