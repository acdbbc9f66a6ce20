"""What does each plugin see of the same tests, and what does looking cost? The figures in the README are from here."""

import contextlib
import json
import sqlite3
import subprocess
import sys
import time

import pytest

MIB = 1024**2
TESTS = """
import mmap, subprocess, sys

def test_nothing():
    pass

def test_child_touches_200():
    subprocess.run([sys.executable, "-c", "block = bytearray(b'x') * (200 * 1024**2)"], check=True)

def test_300_are_mapped_and_not_touched():
    mmap.mmap(-1, 300 * 1024**2).close()

def test_256_for_an_instant():
    bytearray(b"x") * (256 * 1024**2)
"""
NAMES = (
    "test_nothing",
    "test_child_touches_200",
    "test_300_are_mapped_and_not_touched",
    "test_256_for_an_instant",
)
PLUGINS = {"membudget": "membudget", "pytest-memray": "memray", "pytest-monitor": "monitor"}
SWITCHED_ON = {
    None: (),
    "membudget": ("--membudget",),
    "pytest-memray": ("--memray", "--memray-bin-path=captures", "--memray-bin-prefix=capture"),
    "pytest-monitor": ("--db=metrics.db",),
}


def run(folder, subject=None, *options):
    """Wall seconds of pytest in `folder` with this plugin and none of the others."""
    others = [word for name, plugin in PLUGINS.items() if name != subject for word in ("-p", f"no:{plugin}")]
    aside = [word for plugin in ("benchmark", "asyncio", "cacheprovider") for word in ("-p", f"no:{plugin}")]
    began_s = time.perf_counter()
    # The exit code is not looked at: pytest-monitor ends modules with an error of its own under present pytest.
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *others, *aside, *SWITCHED_ON[subject], *options],
        cwd=folder,
        check=False,
        stdout=subprocess.DEVNULL,
    )
    return time.perf_counter() - began_s


def membudget_sees(folder):
    run(folder, "membudget", "--membudget-report=report.json")
    tests = json.loads((folder / "report.json").read_text())["tests"]
    return {test["nodeid"].rpartition("::")[2]: test["peak_bytes"] / MIB for test in tests}


def memray_sees(folder):
    from memray import FileReader

    run(folder, "pytest-memray")
    return {
        name: FileReader(next((folder / "captures").glob(f"*{name}*"))).metadata.peak_memory / MIB
        for name in NAMES
    }


def monitor_sees(folder):
    run(folder, "pytest-monitor")
    with contextlib.closing(sqlite3.connect(folder / "metrics.db")) as database:
        seen = dict(database.execute("select ITEM, MEM_USAGE from TEST_METRICS"))
    return {name: seen[name] - seen["test_nothing"] for name in NAMES}


SUBJECTS = {"membudget": membudget_sees, "pytest-memray": memray_sees, "pytest-monitor": monitor_sees}


@pytest.mark.parametrize("subject", SUBJECTS)
def test_what_is_seen(subject, figure, tmp_path):
    (tmp_path / "test_seen.py").write_text(TESTS)
    seen = SUBJECTS[subject](tmp_path)
    for name, true_mib in zip(NAMES[1:], (200, 0, 256), strict=True):
        figure(f"{subject} on {name}", f"{seen[name]:.0f} MiB", f"really {true_mib} MiB")
        if subject == "membudget":
            assert seen[name] == pytest.approx(true_mib, rel=0.1, abs=2)


@pytest.mark.parametrize("subject", SUBJECTS)
def test_cost_of_an_empty_test(subject, figure, tmp_path):
    count = 2000 if subject == "membudget" else 100
    (tmp_path / "many").mkdir()
    (tmp_path / "many" / "test_empty.py").write_text(
        f"import pytest\n\n@pytest.mark.parametrize('number', range({count}))\ndef test_empty(number): pass\n"
    )
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "test_one.py").write_text("def test_one(): pass\n")
    rounds = [
        (run(tmp_path / "many", subject) - run(tmp_path / "one", subject))
        - (run(tmp_path / "many") - run(tmp_path / "one"))
        for _ in range(3)
    ]
    cost_ms = sorted(rounds)[1] / count * 1000
    figure(
        f"{subject}, added to an empty test",
        f"{cost_ms:.2f} ms",
        "at most 0.25 ms" if subject == "membudget" else "",
    )
    if subject == "membudget":
        assert cost_ms <= 0.25
