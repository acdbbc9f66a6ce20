"""Completion scripts know every command, and their syntax is the shell's."""

import shutil
import subprocess

import pytest

from pytest_membudget.cli import COMMANDS, main

pytest.importorskip("shtab", reason="shtab is not installed (extra completion)")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_names_every_command_and_its_options(shell, capsys):
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for name in [*COMMANDS, "repeats", "tolerance"]:
        assert name in script, name


def test_bash_completes_a_command(capsys):
    bash = shutil.which("bash")
    assert main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    ask = 'COMP_WORDS=(membudget cal); COMP_CWORD=1; _shtab_membudget; echo "${COMPREPLY[@]}"'
    done = subprocess.run([bash, "-c", f"{script}\n{ask}"], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["calibrate"]


def test_without_the_library_it_is_one_sentence(monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "shtab", None)
    assert main(["completion", "bash"]) == 2
    assert "pip install 'pytest-membudget[completion]'" in capsys.readouterr().err
