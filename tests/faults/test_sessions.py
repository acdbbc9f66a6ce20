"""Sessions of tests that break what a test can break: with --membudget each has the outcome that it has without."""

import json
import sys

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.processes,
    pytest.mark.timeout(900),
    pytest.mark.skipif(sys.platform != "linux", reason="limits, forks and signals as Linux has them"),
]

SESSIONS = 12
TESTS_EACH = 10

BODIES = [
    "pass",
    "assert 0",
    "pytest.skip('later')",
    "pytest.xfail('known')",
    "raise SystemExit(3)",
    "raise MemoryError",
    "raise RecursionError",
    "raise Odd('a', 'b')",
    "sys.stdout.close()",
    "os.close(0)",
    "os.environ.clear()",
    "os.chdir('/')",
    "gc.disable(); gc.freeze()",
    "signal.alarm(60); signal.signal(signal.SIGALRM, signal.SIG_IGN)",
    "LEAK.extend(os.open(os.devnull, os.O_RDONLY) for _ in range(50))",
    "resource.setrlimit(resource.RLIMIT_NOFILE, (200, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))",
    "pid = os.fork()\n    if not pid: os._exit(0)\n    os.waitpid(pid, 0)",
    "pid = os.fork()\n    if not pid: os.kill(os.getpid(), 9)\n    assert os.waitpid(-1, 0)[0] == pid",
    "subprocess.Popen(['sleep', '0.3'], start_new_session=True)",
    "threading.Thread(target=time.sleep, args=(0.2,), daemon=True).start()",
    "monkeypatch.setattr(time, 'perf_counter', iter([0.0, 1.5]).__next__)",
    "monkeypatch.setattr(time, 'monotonic', lambda: 0.0)",
    "monkeypatch.setattr(sys, 'platform', 'win32')",
    "monkeypatch.setattr(json, 'loads', lambda *a, **k: None)",
    "monkeypatch.setattr(os, 'write', lambda *a: 1)",
    "monkeypatch.setattr(os, 'read', lambda *a: b'')",
    "monkeypatch.setattr(os, 'listdir', lambda *a: [])",
    "monkeypatch.setattr(os, 'fstat', lambda *a: 1 / 0)",
    "monkeypatch.setattr(gc, 'collect', lambda *a: 1 / 0)",
    "monkeypatch.setattr(subprocess, 'Popen', lambda *a, **k: 1 / 0)",
    "monkeypatch.setattr('builtins.open', lambda *a, **k: 1 / 0)",
    "monkeypatch.setattr(resource, 'getrusage', lambda *a: 1 / 0)",
    "monkeypatch.delattr(select, 'poll')",
    "sys.modules['psutil'] = None",
    "sys.setrecursionlimit(200)",
    "LEAK.append(bytearray(30_000_000))",
    "logging.disable(); logging.shutdown()",
    "warnings.simplefilter('error')",
]
HEAD = """
import gc, json, logging, os, resource, select, signal, subprocess, sys, threading, time, warnings
import pytest
LEAK = []
class Odd(Exception):
    def __init__(self, a, b):
        super().__init__("only one")
    def __str__(self):
        raise ValueError("mine")
"""
CONFTEST = """
import atexit, json, os
seen, write, where = {}, json.dumps, os.environ["OUTCOMES"]
def pytest_runtest_logreport(report):
    if report.when == "call" or report.outcome != "passed":
        seen[report.nodeid.partition("::")[2]] = report.outcome
def pytest_unconfigure(config):
    import resource
    with open(where, "w") as stream:
        stream.write(write(seen))
"""


def test_outcomes_are_those_of_the_same_session_without_us(pytester, chance, monkeypatch):
    pytester.makeconftest(CONFTEST)
    for session in range(SESSIONS):
        bodies = chance.sample(BODIES, TESTS_EACH)
        tests = "".join(
            f"def test_{number}(monkeypatch):\n    {body}\n" for number, body in enumerate(bodies)
        )
        pytester.makepyfile(test_it=HEAD + tests)
        outcomes = {}
        for arguments in (("-p", "no:membudget"), ("--membudget", f"--membudget-report={session}.json")):
            monkeypatch.setenv("OUTCOMES", str(pytester.path / "outcomes.json"))
            result = pytester.runpytest_subprocess(
                *arguments, "-p", "no:cacheprovider", "-p", "no:randomly", timeout=120
            )
            seen = json.loads((pytester.path / "outcomes.json").read_text())
            outcomes[arguments[0]] = (seen, int(result.ret))
            assert len(seen) == TESTS_EACH
        plain, measured = outcomes.values()
        differing = {
            name: (bodies[int(name[5:])], plain[0][name], measured[0][name])
            for name in plain[0]
            if plain[0][name] != measured[0][name]
        }
        assert not differing
        assert plain[1] == measured[1]
        told = {
            test["nodeid"].partition("::")[2]: test["outcome"]
            for test in json.loads((pytester.path / f"{session}.json").read_text())["tests"]
        }
        same = {
            "passed": {"passed", "xpassed"},
            "failed": {"failed", "error"},
            "skipped": {"skipped", "xfailed"},
        }
        assert all(told[name] in same[outcome] for name, outcome in measured[0].items())
