"""A marker that cannot be understood ends the session before any test runs."""

import pytest


@pytest.mark.parametrize(
    ("marker", "said"),
    [
        (
            "memory_budget('12 parsecs')",
            "*test_job: memory_budget: argument 'peak': '12 parsecs' has the unknown unit*",
        ),
        ("memory_budget('12')", "*argument 'peak': '12' has no unit*"),
        ("memory_budget(peek='1 MB')", "*it has no argument 'peek'; there are peak, total*"),
        ("memory_budget('1 MB', '2 MB')", "*argument '2 MB' is one too many*"),
        ("memory_budget('1 MB', peak='2 MB')", "*argument 'peak' is given twice*"),
        ("memory_budget()", "*it names no size*"),
        ("memory_budget('1 MB', isolate='yes')", "*argument 'isolate' is 'yes'; write True or False*"),
        ("memory_budget('1 MB', timeout_s=5)", "*argument 'timeout_s' needs isolate=True*"),
        ("memory_budget(-1)", "*argument 'peak': -1 is negative*"),
        ("memory_budget(total='1 MB', hard=True)", "*argument 'hard' needs a peak*"),
        (
            "memory_budget(lambda one, two: 1)",
            "*argument 'peak' is a function of 'one', which the test does not take*",
        ),
        ("memory_growth(per_cal='1 B')", "*memory_growth: it has no argument 'per_cal'*"),
        ("memory_growth(timeout_s=0)", "*argument 'timeout_s' is 0; write seconds above 0*"),
        ("memory_scales('micro')", "*memory_scales: the test does not take the fixture memory_scale*"),
        ("memory_scales('micro', law='cubic')", "*argument 'law' or 'at_most': law='cubic' is not a law*"),
        (
            "memory_scales('micro', law='linear', at_most='8')",
            "*argument 'law' or 'at_most': '8' is not a slope*",
        ),
        ("memory_scales('micro', law=3)", "*argument 'law' or 'at_most': law=3 is not a law*"),
    ],
)
def test_it_is_a_usage_error_that_names_test_and_argument(pytester, marker, said):
    pytester.makepyfile(
        f"""
        import pytest

        def test_before():
            print("ran", file=open("ran", "w"))

        @pytest.mark.{marker}
        def test_job():
            pass
        """
    )
    result = pytester.runpytest()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([said])
    result.stderr.fnmatch_lines(["*write for example @pytest.mark.memory_*"])
    assert not (pytester.path / "ran").exists()


def test_every_wrong_marker_is_told_at_once(pytester):
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.memory_budget("one")
        def test_one():
            pass

        @pytest.mark.memory_budget("two")
        def test_two():
            pass
        """
    )
    result = pytester.runpytest()
    result.stderr.fnmatch_lines(["*::test_one: *", "*::test_two: *"])
