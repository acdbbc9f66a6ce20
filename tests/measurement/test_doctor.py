import json
import sys

import pytest

from pytest_membudget.cli import main
from pytest_membudget.measurement.doctor import doctor
from pytest_membudget.measurement.process import high_water
from pytest_membudget.measurement.tree import sampler
from pytest_membudget.measurement.tree.sampler import SamplerLostError

pytestmark = pytest.mark.kernel


def finding(subject):
    return next(each for each in doctor().findings if each.subject == subject)


@pytest.mark.skipif(sys.platform != "linux", reason="exact figures need Linux")
def test_this_machine_measures_one_process_exactly():
    assert finding("peak of one process").quality == "exact"
    assert finding("process trees").quality == "bounded"


def test_without_clear_refs_the_doctor_says_what_is_missed(monkeypatch):
    monkeypatch.setattr(high_water, "open_mark", lambda: None)
    found = finding("peak of one process")
    assert found.quality == "sampled"
    assert "missed" in found.why


def test_without_a_helper_the_doctor_says_why(monkeypatch):
    def refuse(**_):
        raise SamplerLostError("no new process is allowed")

    sampler.close_sampler()
    monkeypatch.setattr(sampler, "TreeSampler", refuse)
    monkeypatch.setattr(sampler, "_keeper", sampler._Keeper())
    found = finding("process trees")
    assert found.quality == "sampled"
    assert "no new process is allowed" in found.found


def test_the_command_shows_every_finding(capsys):
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert "memory limit" in shown
    assert main(["doctor", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert {each["subject"] for each in record["findings"]} >= {"process trees", "memory limit", "huge pages"}
