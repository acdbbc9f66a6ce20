"""Whatever tests do to the session's process: pytest's own summary appears, and so does ours."""

import json
import os
import signal
import subprocess
import sys

import pytest

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="limits and signals as Linux has them")


def outcomes(pytester, name="report.json"):
    tests = json.loads((pytester.path / name).read_text())["tests"]
    return {test["nodeid"].partition("::")[2]: test["outcome"] for test in tests}


@LINUX
@pytest.mark.processes
@pytest.mark.parametrize(
    "body",
    [
        # uses up every descriptor
        "    import resource\n    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]\n    for _ in range(most):\n        LEAK.append(os.open(os.devnull, os.O_RDONLY))",
        # leaves a limit so low that nothing can be opened
        "    import resource\n    resource.setrlimit(resource.RLIMIT_NOFILE, (3, 4096))\n    assert 0",
        # leaves no address space
        "    import resource\n    resource.setrlimit(resource.RLIMIT_AS, (50_000_000, resource.RLIM_INFINITY))\n    assert 0",
        # hides a library that a module still to be imported needs
        "    import sys\n    sys.modules['msgspec'] = None\n    assert 0",
    ],
    ids=["descriptors", "open-files", "address-space", "library"],
)
def test_what_a_test_uses_up_costs_no_summary_and_no_report(pytester, body):
    pytester.makepyfile(f"import os\nLEAK = []\ndef test_greedy():\n{body}\n")
    result = pytester.runpytest_subprocess("--membudget-report=report.json", "-p", "no:cacheprovider")
    result.stdout.fnmatch_lines(["*FAILURES*", "*membudget: report: report.json*", "*1 failed*"])
    assert outcomes(pytester) == {"test_greedy": "failed"}


@LINUX
@pytest.mark.processes
def test_few_descriptors_are_enough_where_they_are_for_pytest_itself(pytester):
    pytester.makepyfile(
        "import pytest\n@pytest.mark.memory_budget('50 MB')\ndef test_one(): assert bytearray(10_000_000)"
    )
    result = pytester.run("sh", "-c", f"ulimit -n 16; exec {sys.executable} -m pytest")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["membudget: 1 test measured, 1 checked, none failed*"])


@pytest.mark.processes
def test_lines_that_cannot_be_read_are_counted_and_the_others_shown(pytester):
    pytester.makepyfile(
        """
        def test_one(memory_monitor):
            memory_monitor.progress(1)

        def test_two(tmp_path_factory):
            file = tmp_path_factory.getbasetemp() / "membudget" / "monitors.jsonl"
            with file.open("ab") as stream:
                stream.write(b'{"label": "torn')
        """
    )
    result = pytester.runpytest_subprocess("--membudget-report=report.json")
    result.stdout.fnmatch_lines(["*monitors: 1 of 2 records could not be read*", "*2 passed*"])
    assert len(json.loads((pytester.path / "report.json").read_text())["monitors"]) == 1


@pytest.mark.processes
def test_a_test_whose_worker_was_killed_is_never_passed(pytester):
    pytester.makepyfile(f"import os\ndef test_kill(): os.kill(os.getpid(), {int(signal.SIGTERM)})")
    result = pytester.runpytest_subprocess("-p", "xdist", "-n", "1", "--membudget-report=report.json")
    result.assert_outcomes(failed=1)
    (test,) = json.loads((pytester.path / "report.json").read_text())["tests"]
    assert (test["outcome"], test["verdict"]) == ("failed", "crashed")
    assert "ended before the test did" in test["message"]


@pytest.mark.parametrize("stop", ["raise KeyboardInterrupt", "pytest.exit('enough')"])
def test_a_test_that_was_interrupted_is_never_passed(pytester, stop):
    pytester.makepyfile(f"import pytest\ndef test_done(): pass\ndef test_stopped(): {stop}")
    result = pytester.runpytest_subprocess("--membudget-report=report.json")
    assert result.ret in {pytest.ExitCode.INTERRUPTED, 1, 2}
    assert outcomes(pytester) == {"test_done": "passed", "test_stopped": "error"}


@LINUX
@pytest.mark.processes
def test_a_child_that_a_test_forked_leaves_the_report_to_its_parent(pytester):
    pytester.makepyfile(
        """
        import os

        def test_forks():
            global child
            child = os.fork()

        def test_waits():
            if child:
                os.waitpid(child, 0)
            else:
                raise AssertionError("in the child")
        """
    )
    result = pytester.runpytest_subprocess("--membudget-report=report.json", "-p", "no:cacheprovider")
    result.stdout.fnmatch_lines(["*2 passed*"])
    assert outcomes(pytester) == {"test_forks": "passed", "test_waits": "passed"}


@LINUX
@pytest.mark.processes
def test_a_file_whose_name_is_no_unicode_is_measured_and_reported(tmp_path):
    (tmp_path / os.fsdecode(b"test_\xff.py")).write_bytes(b"def test_q(): pass\n")
    reports = ("--membudget-report=report.json", "--membudget-report=report.md")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *reports, "."]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout
    assert b"1 passed" in done.stdout
    (test,) = json.loads((tmp_path / "report.json").read_text())["tests"]
    assert test["nodeid"] == "test_\\udcff.py::test_q"
    assert "udcff" in (tmp_path / "report.md").read_text()


@LINUX
@pytest.mark.parametrize("kind", ["pipe", "device", "loop"])
def test_a_place_that_takes_no_report_is_refused_before_the_tests(pytester, kind):
    place = pytester.path / "report.json"
    if kind == "pipe":
        os.mkfifo(place)
    else:
        place.symlink_to("/dev/null" if kind == "device" else place)
    pytester.makepyfile("def test_it(): open('ran', 'w')")
    result = pytester.runpytest_subprocess("--membudget-report=report.json")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--membudget-report: *report.json cannot be written*"])
    assert not (pytester.path / "ran").exists()


@LINUX
@pytest.mark.parametrize("place", ["pipe", "/proc/kmsg"])
def test_a_step_summary_that_is_no_file_is_a_note(pytester, monkeypatch, place):
    if place == "pipe":
        os.mkfifo(pytester.path / "pipe")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", place)
    pytester.makepyfile("def test_it(): pass")
    result = pytester.runpytest_subprocess("--membudget", timeout=60)
    result.stdout.fnmatch_lines(["*GitHub's step summary could not be written: is not a plain file*"])


FORKING = """
import json, os, pytest
from _pytest.runner import runtestprotocol

@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item, nextitem):
    hook, (reading, writing) = item.config.hook, os.pipe()
    if not os.fork():
        reports = runtestprotocol(item, log=False, nextitem=nextitem)
        data = [hook.pytest_report_to_serializable(config=item.config, report=each) for each in reports]
        os.write(writing, json.dumps(data, default=str).encode())
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as stream:
        data = json.load(stream)
    os.wait()
    for each in data:
        report = hook.pytest_report_from_serializable(config=item.config, data=each)
        item.ihook.pytest_runtest_logreport(report=report)
    return True
"""


@LINUX
@pytest.mark.processes
def test_the_record_of_a_test_that_a_plugin_runs_in_a_fork_comes_with_its_report(pytester):
    pytester.makeconftest(FORKING)
    pytester.makepyfile("def test_takes(): bytearray(30_000_000)")
    pytester.runpytest_subprocess("--membudget-report=r.json").assert_outcomes(passed=1)
    (test,) = json.loads((pytester.path / "r.json").read_text())["tests"]
    assert test["outcome"] == "passed"
    assert test["peak_bytes"] > 20_000_000
