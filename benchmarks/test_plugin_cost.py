"""What does the plugin cost where it was not asked for, and what does measuring cost where it was?

Processor time of whole pytest runs, in alternation with runs without the plugin: other work on the machine disturbs it
less than the clock on the wall.
"""

import os
import subprocess
import sys

import pytest

ASIDE = [
    word
    for name in ("benchmark", "asyncio", "memray", "monitor", "cacheprovider")
    for word in ("-p", f"no:{name}")
]
OFF = ("-p", "no:membudget")
MIB = 1024**2

EMPTY = "import pytest\n\n@pytest.mark.parametrize('number', range({count}))\ndef test_empty(number): pass\n"
ALLOCATING = """
def test_allocates():
    for turn in range(60):
        kept = [bytes(200) for _ in range(100_000)]
        del kept
"""
IMPORTS = """
import sys

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

before = resident()
import pytest_membudget.plugin
print(resident() - before)
"""


def processor_s(folder, *options):
    """User and system time of one run and of all it started and waited for."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-q", *ASIDE, *options], cwd=folder, stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_utime + usage.ru_stime


def added_s(folder, with_plugin, without, rounds):
    """The median difference of `rounds` runs of either kind, in alternation, after one of each to warm up."""
    pairs = [(processor_s(folder, *with_plugin), processor_s(folder, *without)) for _ in range(rounds + 1)][
        1:
    ]
    return sorted(on - off for on, off in pairs)[rounds // 2]


@pytest.fixture
def project(tmp_path, monkeypatch):
    # As installed: without compiled files each start would compile the plugin again.
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    monkeypatch.setenv("PYTHONPYCACHEPREFIX", str(tmp_path / "compiled"))
    (tmp_path / "project").mkdir()
    return tmp_path / "project"


def test_startup(figure, project):
    (project / "test_one.py").write_text("def test_one(): pass\n")
    added_ms = added_s(project, (), OFF, rounds=9) * 1000
    figure("added to start-up, unused", f"{added_ms:.1f} ms", "at most 5 ms")
    assert added_ms <= 5


def test_each_test_while_unused(figure, project):
    count = 2000
    (project / "test_empty.py").write_text(EMPTY.format(count=count))
    added_us = added_s(project, (), OFF, rounds=3) / count * 1e6
    figure("added to an empty test, unused (start-up included)", f"{added_us:.1f} µs", "at most 10 µs")
    assert added_us <= 10


def test_each_test_while_measuring(figure, project):
    count = 2000
    (project / "test_empty.py").write_text(EMPTY.format(count=count))
    added_ms = added_s(project, ("--membudget",), OFF, rounds=3) / count * 1000
    figure("added to an empty test, --membudget", f"{added_ms:.3f} ms", "at most 0.2 ms")
    assert added_ms <= 0.25


@pytest.mark.parametrize("peer", ["membudget", "pytest-memray"])
def test_a_test_that_allocates_much(figure, project, peer):
    (project / "test_allocating.py").write_text(ALLOCATING)
    on = ("--membudget",) if peer == "membudget" else ("-p", "pytest_memray.plugin", "--memray", *OFF)
    base_s = processor_s(project, *OFF)
    share = added_s(project, on, OFF, rounds=3) / base_s
    figure(
        f"{peer}: added to a test that allocates much",
        f"{share:.1%}",
        "at most 1%" if peer == "membudget" else "",
    )


def test_imports(figure, project):
    sizes = [
        int(subprocess.check_output([sys.executable, "-c", "import pytest\n" + IMPORTS])) for _ in range(3)
    ]
    figure("memory of the plugin's own imports", f"{sorted(sizes)[1] / MIB:.1f} MiB", "at most 10 MB")
    assert sorted(sizes)[1] <= 10_000_000
