"""Repeating a test's body leaves nothing of pytest's behind, and says so where it fails."""

import sys

import pytest

STATE_OF_PYTEST = """
    import json, logging, os, sys, time, unittest, warnings
    from unittest import mock
    import pytest

    pytestmark = pytest.mark.memory_growth(timeout_s=4)

    def test_subtests(subtests):
        for i in range(2):
            with subtests.test(i=i):
                pass

    class TestIt(unittest.TestCase):
        def test_subtest(self):
            for i in range(2):
                with self.subTest(i=i):
                    pass

    class TestAsync(unittest.IsolatedAsyncioTestCase):
        async def test_it(self):
            pass

    def test_patches(monkeypatch, capsys, record_property, caplog):
        monkeypatch.setenv("TOKEN", "x")
        print("hello", time.time())
        record_property("seconds", 1)

    @pytest.fixture
    def service():
        return mock.Mock()

    def test_mock_of_a_fixture(service):
        service.get(b"x" * 100)
        service.get.assert_called_once()

    def test_records_of_one_call(caplog, capsys, recwarn):
        assert (caplog.records, capsys.readouterr(), len(recwarn)) == ([], ("", ""), 0)
        logging.getLogger("service").warning("slow")
        warnings.warn("old", DeprecationWarning)
        recwarn.pop(DeprecationWarning)
        print("not read")

    @pytest.fixture
    def token(monkeypatch):
        monkeypatch.setenv("TOKEN", "of the setup")

    def test_deletes(monkeypatch, token):
        assert os.environ["TOKEN"] == "of the setup"
        monkeypatch.delenv("TOKEN")
        monkeypatch.delattr(json, "loads")

    def test_streams(monkeypatch):
        monkeypatch.setattr(sys, "stdout", None)
"""


def test_what_pytest_keeps_of_one_call_does_not_pile_up(pytester):
    pytester.makepyfile(STATE_OF_PYTEST)
    result = pytester.runpytest_subprocess("-q")
    result.assert_outcomes(passed=8)
    result.stdout.fnmatch_lines(["*8 passed, 4 subtests passed*"])


RECORDERS = """
    import pytest

    class Recorder:
        def __init__(self):
            self.requests, self.patches = [], Patches()

        def send(self):
            self.requests.append(bytes(100))

    class Patches:
        def __init__(self):
            self.cache = []

    class Item:
        def __init__(self, patch):
            self.patch = patch

    @pytest.fixture
    def recorder():
        recorder = Recorder()
        recorder.send()
        yield recorder
        assert (len(recorder.requests), len(recorder.patches.cache)) == (2, 1)  # as without repetitions
    """


def test_what_mocks_of_known_plugins_record_does_not_pile_up(pytester):
    pytester.makepyfile(
        pytest_httpx=RECORDERS,
        test_it="""
        import os
        from unittest import mock
        import pytest
        from pytest_httpx import Item

        number = os.getpid

        @pytest.mark.memory_growth(timeout_s=4)
        def test_sends(recorder):
            patch = mock.patch("os.getpid", return_value=7)
            patch.start()
            recorder.patches.cache.append(Item(patch))
            recorder.send()
            assert os.getpid() == 7

        def test_patches_of_repetitions_are_stopped():
            assert os.getpid is not number  # of the test's own run, which nothing here stops
            mock.patch.stopall()
            assert os.getpid is number
        """,
    )
    result = pytester.runpytest_subprocess("-q", "-p", "pytest_httpx")
    result.assert_outcomes(passed=2)


def test_a_test_that_has_not_passed_is_not_repeated(pytester):
    pytester.makepyfile("""
        import unittest
        import pytest

        @pytest.mark.memory_growth
        class TestIt(unittest.TestCase):
            def test_skips(self):
                self.skipTest("not here")

            @unittest.expectedFailure
            def test_fails_as_expected(self):
                self.fail("known")

            def test_fails_in_part(self):
                with self.subTest():
                    self.fail("in part")
    """)
    result = pytester.runpytest_subprocess("-q")
    assert "call 2" not in result.stdout.str()
    result.stdout.fnmatch_lines(["*1 skipped, 1 xfailed*"])


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_growth_that_cannot_be_judged_without_descriptors_is_said(pytester):
    pytester.makepyfile("""
        import resource
        import pytest

        @pytest.mark.memory_growth(timeout_s=0.5)
        def test_uses_all_descriptors(request):
            limits = resource.getrlimit(resource.RLIMIT_NOFILE)
            request.addfinalizer(lambda: resource.setrlimit(resource.RLIMIT_NOFILE, limits))
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    """)
    result = pytester.runpytest_subprocess("-q", "--membudget-strict")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*could not be judged in the state*"])


def test_each_repetition_starts_in_the_folder_that_the_body_began_in(pytester):
    pytester.makepyfile("""
        import os
        import pytest

        @pytest.fixture
        def folder(tmp_path, monkeypatch):
            (tmp_path / "sub").mkdir()
            monkeypatch.chdir(tmp_path)
            yield
            assert os.getcwd() == str(tmp_path / "sub")  # as the body left it

        @pytest.mark.memory_growth(timeout_s=0.5)
        def test_goes_below(folder):
            os.chdir("sub")

        @pytest.mark.memory_growth(timeout_s=0.5)
        def test_removes_its_folder(tmp_path, monkeypatch):
            gone = tmp_path / "gone"
            gone.mkdir()
            monkeypatch.chdir(gone)
            gone.rmdir()
    """)
    pytester.runpytest_subprocess("-q").assert_outcomes(passed=2)


def test_growth_that_cannot_be_judged_beside_another_library_fails_no_test(pytester):
    """Such as eventlet, whose threads lack what others have."""
    pytester.makeconftest("""
        from pytest_membudget.measurement.growth.samples import Inventory

        def take():
            raise AttributeError("no native_id")

        Inventory.take = take
    """)
    pytester.makepyfile("""
        import pytest

        @pytest.mark.memory_growth(timeout_s=0.5)
        def test_it():
            pass
    """)
    result = pytester.runpytest_subprocess("-vv", "--membudget-report=report.json")
    result.assert_outcomes(passed=1)
    report = (pytester.path / "report.json").read_text()
    assert "could not be judged in the state that the test left its process in: no native_id" in report


def test_a_failure_in_a_repetition_says_that_it_is_one(pytester):
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.memory_growth
        def test_makes_a_folder(tmp_path):
            print("printed by the test itself")
            (tmp_path / "a").mkdir()
        """
    )
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["E *call 2 of the test's body, which memory_growth repeats, with the fixtures of the first*"]
    )
    assert (
        result.stdout.str().count("printed by the test itself") == 2
    )  # in the source, and once as its output
    result.stdout.no_fnmatch_line("*measurement?growth*")


def test_fresh_fixtures_are_set_up_and_torn_down_for_each_repetition(pytester):
    # Python 3.12 keeps each interned string for good: here the names of folders.
    allowed = "1 KiB" if sys.version_info[:2] == (3, 12) else "16 B"
    pytester.makepyfile(
        f"""
        import pytest

        open_now, opened = set(), []

        @pytest.fixture
        def connection():
            me = object()
            opened.append(None)
            open_now.add(me)
            yield me
            open_now.remove(me)

        @pytest.mark.memory_growth(timeout_s=3, per_call="{allowed}", fresh_fixtures=True)
        def test_it(connection, tmp_path):
            (tmp_path / "a").mkdir()
            assert open_now == {{connection}}

        def test_all_are_closed():
            assert not open_now and len(opened) > 5  # how many fit into the time is the machine's affair
        """
    )
    pytester.runpytest_subprocess().assert_outcomes(passed=2)


def test_a_sub_test_that_fails_in_a_repetition_fails_the_test(pytester):
    pytester.makepyfile(
        """
        import itertools, pytest

        calls = itertools.count()

        @pytest.mark.memory_growth
        def test_it(subtests):
            with subtests.test():
                assert next(calls) < 3
        """
    )
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*a sub-test failed*"])


@pytest.mark.parametrize("call", ["signal.alarm(0)", "int(signal.getsignal(signal.SIGALRM))"])
def test_the_alarm_is_the_tests_own(pytester, call):
    pytester.makepyfile(
        f"""
        import signal, pytest

        @pytest.mark.memory_growth(timeout_s=3)
        def test_it():
            assert {call} == 0
        """
    )
    pytester.runpytest_subprocess().assert_outcomes(passed=1)
