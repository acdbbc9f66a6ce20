"""Are leaks found, and clean functions left in peace? The whole corpus, five seeds, a loaded machine, and the peers."""

import contextlib
import importlib.util
import statistics
import subprocess
import sys
from collections.abc import Callable

import pytest
from growth_corpus.case import load
from growth_corpus.run import Found, judge, judge_with_memray, judge_with_psleak

CASES = load()
SEEDS = range(5)
TARGETS = ("all", "0", "at most 2%", "at most 0.5 s", "at most 10 s")
Tool = Callable[[str, int], Found]


@contextlib.contextmanager
def stressed(processes: int = 4):
    """As many busy processes as keep this machine's cores from us."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def run_all(tool: Tool, seed: int) -> dict[str, Found]:
    """{name: what the tool found} over the whole corpus."""
    return {name: tool(name, seed) for name in CASES}


def show(
    figure, found: dict[str, Found], tool: str, targets=TARGETS
) -> tuple[list[str], list[str], list[str]]:
    leaks = [name for name, case in CASES.items() if case.leaks]
    clean = [name for name, case in CASES.items() if not case.leaks]
    hits = sum(found[name].verdict == "leak" for name in leaks)
    alarms = [name for name in clean if found[name].verdict == "leak"]
    undecided = [name for name in found if found[name].verdict not in {"leak", "clean"}]
    seconds = [it.seconds for it in found.values()]
    figure(f"{tool}: leaks found", f"{hits} of {len(leaks)}", targets[0])
    figure(f"{tool}: clean functions accused", f"{len(alarms)} of {len(clean)}", targets[1])
    figure(f"{tool}: inconclusive or failed", f"{len(undecided)} of {len(found)}", targets[2])
    figure(f"{tool}: median time", f"{statistics.median(seconds):.2f} s", targets[3])
    figure(f"{tool}: longest time", f"{max(seconds):.1f} s", targets[4])
    missed = [name for name in leaks if found[name].verdict == "clean"]
    print(f"{tool}: missed {missed}, accused {alarms}, undecided {undecided}")
    return missed, alarms, undecided


def test_the_corpus_is_large_enough():
    assert sum(case.leaks for case in CASES.values()) >= 40
    assert sum(not case.leaks for case in CASES.values()) >= 40


@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", SEEDS)
def test_verdicts(seed, figure):
    found = run_all(judge, seed)
    missed, alarms, undecided = show(figure, found, f"check_growth, seed {seed}")
    assert (missed, alarms) == ([], [])
    assert len(undecided) <= 0.02 * len(CASES)
    assert max(it.seconds for it in found.values()) <= 10
    assert statistics.median(it.seconds for it in found.values()) <= 0.5


@pytest.mark.timeout(1800)
def test_verdicts_stay_on_a_loaded_machine(figure):
    with stressed():
        found = run_all(judge, 5)
    missed, alarms, undecided = show(
        figure, found, "check_growth, loaded", ("all", "0", "at most 2%", "", "")
    )
    assert (missed, alarms) == ([], [])
    assert len(undecided) <= 0.02 * len(CASES)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("tool", "library"), [(judge_with_psleak, "psleak"), (judge_with_memray, "pytest_memray")]
)
def test_peers(tool, library, figure):
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed: pip install -r benchmarks/requirements.txt")
    show(figure, run_all(tool, 0), library, ("", "", "", "", ""))
