"""Are leaks found, and clean functions left in peace? By `check_growth` with five seeds and on a loaded machine, and by peers.

Each part takes one to three minutes on two quiet cores; choose some with `-k`: `check_growth`, `seed0`, `loaded`, `psleak`,
`memray`, `part2`. One table at the end puts side by side what all parts that ran have found.
"""

import contextlib
import importlib.util
import statistics
import subprocess
import sys
from collections import defaultdict

import pytest
from growth_corpus.corpus import CASES
from growth_corpus.run import Found, judge, judge_with_memray, judge_with_psleak
from tables import print_table

LEAKS = {name for name, case in CASES.items() if case.leaks}
SEEDS = range(5)
LOADED_PARTS = 2
PEER_PARTS = 6
PEERS = {"psleak": judge_with_psleak, "pytest_memray": judge_with_memray}
HEADER = ("", "runs", "leaks found", "clean accused", "undecided", "median", "CPU median", "longest")
WANTED = ("wanted of check_growth", "", "all", "0", "at most 2%", "0.5 s", "", "10 s")


class Runs(list[tuple[str, Found]]):
    """What a tool found: pairs of a case's name and `Found`."""

    def names(self, verdict, *, among):
        return [
            name for name, found in self if found.verdict == verdict and (name in LEAKS) == (among == "leaks")
        ]

    @property
    def undecided(self):
        return [name for name, found in self if found.verdict not in {"leak", "clean"}]

    def row(self, title):
        leaks = sum(name in LEAKS for name, _ in self)
        answered = [found for _, found in self if found.cpu_seconds]
        cpu = f"{statistics.median(found.cpu_seconds for found in answered):.2f} s" if answered else ""
        return (
            title,
            str(len(self)),
            f"{len(self.names('leak', among='leaks'))} of {leaks}",
            f"{len(self.names('leak', among='clean'))} of {len(self) - leaks}",
            str(len(self.undecided)),
            f"{statistics.median(found.seconds for _, found in self):.2f} s",
            cpu,
            f"{max(found.seconds for _, found in self):.1f} s",
        )

    def told(self):
        missed, accused = self.names("clean", among="leaks"), self.names("leak", among="clean")
        return f"missed {missed}, accused {accused}, undecided {self.undecided}"


@pytest.fixture(scope="module")
def runs(request):
    """All runs of the session by title; shows them in one table in the end."""
    found: defaultdict[str, Runs] = defaultdict(Runs)
    yield found
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print_table("Growth", [HEADER, *(each.row(title) for title, each in found.items()), WANTED])
        for title, each in found.items():
            print(f"{title}: {each.told()}")


@contextlib.contextmanager
def stressed(processes=4):
    """As many busy processes as keep this machine's cores from us."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def run(tool, seed, names=tuple(CASES)):
    return Runs((name, tool(name, seed)) for name in names)


def part_of(number, parts):
    """Every `parts`-th case, so that each part has some of every kind."""
    return tuple(CASES)[number::parts]


def check(found):
    assert (found.names("clean", among="leaks"), found.names("leak", among="clean")) == ([], [])
    assert len(found.undecided) <= 0.02 * len(found)
    assert max(each.seconds for _, each in found) <= 10


def test_the_corpus_is_large_enough():
    assert len(LEAKS) >= 40
    assert len(CASES) - len(LEAKS) >= 40


@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", SEEDS, ids="seed{}".format)
def test_check_growth(seed, runs):
    found = run(judge, seed)
    runs["check_growth"] += found
    check(found)
    assert statistics.median(each.seconds for _, each in found) <= 0.5


@pytest.mark.timeout(900)
@pytest.mark.parametrize("part", range(LOADED_PARTS), ids="part{}".format)
def test_check_growth_loaded(part, runs):
    with stressed():
        found = run(judge, 5, part_of(part, LOADED_PARTS))
    runs["check_growth, 4 busy processes beside it"] += found
    check(found)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("part", range(PEER_PARTS), ids="part{}".format)
@pytest.mark.parametrize("library", PEERS)
def test_peers(library, part, runs):
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed: pip install -r benchmarks/requirements.txt")
    runs[library] += run(PEERS[library], 0, part_of(part, PEER_PARTS))
