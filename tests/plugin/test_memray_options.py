"""--membudget-memray: who allocated the peak of a failing test."""

import json
import re

import pytest

from pytest_membudget.plugin.fresh.memray import folder_name

PROJECT = """
import pytest

def take():
    return bytearray(b"x") * (80 << 20)

@pytest.mark.memory_budget("10 MiB"{more})
def test_over():
    take()

@pytest.mark.memory_budget("1 GiB")
def test_within():
    take()
"""


@pytest.mark.processes
@pytest.mark.parametrize("more", ["", ", isolate=True"])
def test_the_failure_says_which_line_held_the_heap(pytester, more):
    pytester.makepyfile(test_it=PROJECT.format(more=more))
    result = pytester.runpytest_subprocess("--membudget-memray", "--membudget-report=a.json")
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines(
        [
            "  who *run again under memray; its heap at the peak was 8* MiB, held by",
            "*80.0 MiB  take (test_it.py:4) < test_over (test_it.py:8)",
            "*memray counts the heap*",
        ]
    )
    over, within = json.loads((pytester.path / "a.json").read_text())["tests"]
    (site,) = over["allocations"]
    assert site["heap_bytes"] >= 80 << 20
    assert [frame.partition(" ")[0] for frame in site["stack"]] == ["take", "test_over"], (
        "none of pytest's own"
    )
    assert within["allocations"] == []


@pytest.mark.processes
def test_what_a_child_held_is_told_to_be_out_of_memrays_sight(pytester):
    pytester.makepyfile(
        test_it="""
import subprocess, sys
import pytest

@pytest.mark.memory_budget("10 MiB")
def test_over():
    code = "held = bytearray(b'x') * (80 << 20); import time; time.sleep(0.3)"
    subprocess.run([sys.executable, "-c", code], check=True)
"""
    )
    result = pytester.runpytest_subprocess("--membudget-memray")
    result.stdout.fnmatch_lines(
        [
            "  who *no line held 1% of what was measured",
            "*memray sees this process alone: where a child used most*",
        ]
    )
    result.stdout.no_fnmatch_line("*_execute_child*")


@pytest.mark.processes
def test_capture_and_flame_graph_are_kept_where_asked(pytester):
    pytester.makepyfile(test_it=PROJECT.format(more=""))
    result = pytester.runpytest_subprocess("--membudget-memray-dir=captures")
    kept = pytester.path / "captures" / "test_it.py-test_over"
    assert (kept / "capture.bin").stat().st_size > 0
    assert "<html" in (kept / "flamegraph.html").read_text()
    result.stdout.fnmatch_lines(["*flame graph: *flamegraph.html*"])


def test_each_test_has_a_folder_of_its_own_for_its_capture():
    assert folder_name("tests/test_a.py::TestIt::test_b") == "tests-test_a.py-TestIt-test_b"
    names = [
        folder_name(f"test_a.py::test_b[{each}]")
        for each in ("a b", "a:b", "a/b", "x" * 300, "y" + "x" * 299)
    ]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[\w.-]{1,200}", name) for name in names)


def test_without_the_option_the_message_says_how_to_ask(pytester):
    pytester.makepyfile(test_it=PROJECT.format(more=""))
    pytester.runpytest().stdout.fnmatch_lines(["*run this test with --membudget-memray*"])
