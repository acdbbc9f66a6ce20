import msgspec
import pytest

from pytest_membudget.errors import UsageError
from pytest_membudget.gate.baseline import check_environment, environment_differences, in_short
from pytest_membudget.records.report import Environment

HERE = Environment(
    system="Linux",
    kernel="6.18.2-generic",
    machine="x86_64",
    python="3.11.9",
    libc="glibc 2.36",
    page_size_bytes=4096,
    cores=2,
    limit_bytes=10,
    packages={"pandas": "3.1.1"},
)


def changed(**fields):
    return msgspec.structs.replace(HERE, **fields)


@pytest.mark.parametrize(
    "fields", [{}, {"kernel": "6.18.9"}, {"python": "3.11.12"}, {"limit_bytes": 99}, {"libc": ""}]
)
def test_patch_releases_the_limit_and_the_unknown_are_no_difference(fields):
    assert environment_differences(HERE, changed(**fields)) == ()


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"kernel": "6.19.0"}, "kernel 6.18 there, 6.19 here"),
        ({"python": "3.12.1"}, "Python 3.11 there, 3.12 here"),
        ({"page_size_bytes": 65536}, "page size 4096 there, 65536 here"),
        ({"allocator": "MALLOC_ARENA_MAX=2"}, "allocator settings none there, MALLOC_ARENA_MAX=2 here"),
        ({"packages": {"pandas": "3.2.0"}}, "pandas 3.1.1 there, 3.2.0 here"),
        ({"packages": {}}, "pandas 3.1.1 there, none here"),
    ],
)
def test_what_moves_peaks_is_told(fields, told):
    assert environment_differences(HERE, changed(**fields)) == (told,)


def test_strict_refuses_a_foreign_baseline_and_says_what_to_do():
    there = changed(cores=64)
    assert check_environment(HERE, there, path="b.json") == ("cores 2 there, 64 here",)
    with pytest.raises(
        UsageError, match=r"b\.json is from another environment \(cores 2 there, 64 here\).*update-baseline"
    ):
        check_environment(HERE, there, path="b.json", strict=True)
    assert check_environment(HERE, HERE, path="b.json", strict=True) == ()


def test_many_differences_are_told_in_short():
    assert in_short(()) == ""
    assert in_short(("a", "b", "c")) == "a; b; c"
    assert in_short(tuple("abcd")) == "a; b; c; and 1 more"
    assert in_short(tuple("abcde")) == "a; b; c; and 2 more"
