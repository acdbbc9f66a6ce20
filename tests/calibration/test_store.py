import msgspec
import pytest

from pytest_membudget import UsageError, fit_points
from pytest_membudget.calibration.model import Calibration
from pytest_membudget.calibration.store import check_fresh, named_calibration, save_named
from pytest_membudget.calibration.worker import digest_source
from pytest_membudget.records.report import Environment

FOUND = fit_points([(1_000, 5_000), (2_000, 9_000), (4_000, 17_000)])
HERE = Environment(system="Linux", python="CPython 3.11.7", libc="glibc 2.36", packages={"pandas": "2.1"})


def taken_at(environment, **fields):
    return Calibration(msgspec.structs.replace(FOUND.file, environment=environment, **fields))


def test_a_calibration_is_kept_by_name_in_the_project(tmp_path):
    path = save_named(FOUND, "parser", tmp_path)
    assert path == tmp_path / ".membudget" / "calibrations" / "parser.json"
    assert named_calibration("parser", tmp_path).file == FOUND.file


def test_an_unknown_name_lists_the_known_ones(tmp_path):
    save_named(FOUND, "parser", tmp_path)
    with pytest.raises(UsageError, match=r"no calibration 'parse' in .*there: parser.*--save parse"):
        named_calibration("parse", tmp_path)


@pytest.mark.parametrize("name", ["", "../parser", "a/b", ".hidden", "a" * 101])
def test_a_name_cannot_leave_the_folder(name, tmp_path):
    with pytest.raises(UsageError, match="is not a name"):
        save_named(FOUND, name, tmp_path)


def test_the_same_place_and_source_are_fresh():
    assert check_fresh(taken_at(HERE), HERE) == ()
    assert check_fresh(FOUND, HERE) == ()
    assert check_fresh(taken_at(HERE), msgspec.structs.replace(HERE, python="CPython 3.11.9")) == ()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"system": "Darwin"}, "system 'Linux', here it is 'Darwin'"),
        ({"python": "CPython 3.12.1"}, "Python '3.11', here it is '3.12'"),
        ({"packages": {}}, "pandas '2.1', here it is 'none'"),
    ],
)
def test_a_foreign_place_is_said(change, said):
    (caveat,) = check_fresh(taken_at(HERE), msgspec.structs.replace(HERE, **change))
    assert said in caveat


def test_a_changed_source_is_said():
    digest = digest_source(check_fresh)
    assert len(digest) == 64
    assert check_fresh(taken_at(HERE, source_digest=digest), HERE, check_fresh) == ()
    (caveat,) = check_fresh(taken_at(HERE, source_digest="0" * 64), HERE, check_fresh)
    assert "has changed since" in caveat
    assert digest_source(len) == ""
