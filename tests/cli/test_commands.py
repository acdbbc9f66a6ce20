"""The command by itself: what there is, and how one asks."""

import pytest

from pytest_membudget import cli
from pytest_membudget.cli import COMMANDS, main


def test_without_a_command_there_is_the_list_of_them(capsys):
    assert main([]) == 2
    told = capsys.readouterr().err
    assert all(f"    {name}" in told for name in COMMANDS)


def test_an_unknown_command_is_a_usage_error_that_lists_them(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["dotcor"])
    assert "'doctor'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "required"),
    [("calibrate", "MODULE:FUNCTION"), ("workers", "CALIBRATION"), ("bisect", "TEST, GOOD, BAD")],
)
def test_words_that_may_be_left_out_are_not_said_to_be_required(capsys, command, required):
    with pytest.raises(SystemExit, match="2"):
        main([command])
    assert capsys.readouterr().err.endswith(f"the following arguments are required: {required}\n")


def test_an_interrupt_while_a_command_is_imported_is_no_traceback(capsys, monkeypatch):
    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_load", interrupted)
    assert main(["doctor"]) == 130
    assert capsys.readouterr().err == "membudget doctor: interrupted\n"
