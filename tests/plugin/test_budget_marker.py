"""What the memory_budget marker does to a test."""

import json

HUNGRY = """
    import pytest

    MIB = 1024 * 1024

    def take(size):
        return bytearray(b"x") * size
"""


def run(pytester, body, *args):
    pytester.makepyfile(HUNGRY + body)
    return pytester.runpytest(*args)


def test_a_test_over_its_budget_fails_with_both_numbers_and_no_traceback(pytester):
    result = run(
        pytester,
        """
    @pytest.mark.memory_budget("10 MiB")
    def test_job():
        take(40 * MIB)
    """,
    )
    result.assert_outcomes(failed=1)
    result.stdout.re_match_lines([r"FAILED .*::test_job - peak (39|40)\.\d MiB > budget 10\.0 MiB.*"])
    result.stdout.no_fnmatch_line("*call.py*")


def test_a_debugger_opens_at_the_test_that_was_over_its_budget(pytester):
    result = run(
        pytester,
        """
    @pytest.mark.memory_budget("10 MiB")
    def test_job():
        take(40 * MIB)
    """,
        "--pdb",
    )
    result.stdout.re_match_lines([r"peak .* > budget 10\.0 MiB.*", r"> .*\.py\(\d+\)test_job\(\)"])


def test_a_test_within_its_budget_passes(pytester):
    result = run(
        pytester,
        """
    @pytest.mark.memory_budget("60 MiB")
    def test_job():
        take(40 * MIB)
    """,
    )
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["membudget: 1 test measured, 1 checked, none failed, largest peak * MiB"])


def test_what_fixtures_take_is_not_the_tests(pytester):
    result = run(
        pytester,
        """
    @pytest.fixture
    def held():
        return take(40 * MIB)

    @pytest.mark.memory_budget("10 MiB")
    def test_job(held):
        pass
    """,
    )
    result.assert_outcomes(passed=1)


def test_the_tests_own_failure_comes_first(pytester):
    result = run(
        pytester,
        """
    @pytest.mark.memory_budget("10 MiB")
    def test_job():
        take(40 * MIB)
        assert 1 == 2
    """,
        "--membudget-report=out.json",
    )
    result.stdout.fnmatch_lines(["FAILED *::test_job - assert 1 == 2"])
    (test,) = json.loads((pytester.path / "out.json").read_text())["tests"]
    assert (test["outcome"], test["verdict"]) == ("failed", "over")


def test_over_budget_under_xfail_is_xfailed(pytester):
    result = run(
        pytester,
        """
    from pytest_membudget import OverBudgetError

    @pytest.mark.xfail(raises=OverBudgetError, strict=True)
    @pytest.mark.memory_budget("10 MiB")
    def test_job():
        take(40 * MIB)
    """,
    )
    result.assert_outcomes(xfailed=1)


def test_a_parameters_mark_beats_the_functions(pytester):
    result = run(
        pytester,
        """
    @pytest.mark.memory_budget("10 MiB")
    @pytest.mark.parametrize("mib", [5, pytest.param(40, marks=pytest.mark.memory_budget("60 MiB")), 30])
    def test_job(mib):
        take(mib * MIB)
    """,
    )
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["FAILED *::test_job?30? *"])


def test_a_budget_may_be_a_function_of_the_tests_arguments(pytester):
    result = run(
        pytester,
        """
    @pytest.mark.memory_budget(lambda mib: (mib + 5) * MIB)
    @pytest.mark.parametrize("mib", [10, 30])
    def test_job(mib):
        take(mib * MIB)

    @pytest.mark.memory_budget(lambda item: f"{item.callspec.params['mib'] // 2} MiB")
    @pytest.mark.parametrize("mib", [60])
    def test_other(mib):
        take(mib * MIB)
    """,
    )
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["FAILED *::test_other?60? - peak * > budget 30.0 MiB*"])


def test_a_budget_function_that_fails_is_named(pytester):
    result = run(
        pytester,
        """
    @pytest.mark.memory_budget(lambda item: 1 / 0)
    def test_job():
        pass
    """,
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*the function given as 'peak' has no answer*ZeroDivisionError*"])
    result.stdout.no_fnmatch_line("*exception*exception*")  # one after the other


def test_total_and_retained_are_judged_too(pytester):
    result = run(
        pytester,
        """
    kept = []

    @pytest.mark.memory_budget(retained="10 MiB")
    def test_kept():
        kept.append(take(42 * MIB))

    @pytest.mark.memory_budget(total="1 MiB")
    def test_total():
        pass
    """,
    )
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(
        ["FAILED *retained 4*MiB > budget 10.0 MiB*", "FAILED *total peak * > budget 1.00 MiB*"]
    )


def test_marks_of_class_and_module_hold(pytester):
    result = run(
        pytester,
        """
    pytestmark = pytest.mark.memory_budget("10 MiB")

    def test_module():
        take(40 * MIB)

    @pytest.mark.memory_budget("60 MiB")
    class TestClass:
        def test_method(self):
            take(40 * MIB)
    """,
    )
    result.assert_outcomes(passed=1, failed=1)
