"""Are leaks found, and clean functions left in peace? By `check_growth` with five seeds and on a loaded machine, and by peers.

Short functions, and functions of real libraries as people have them. Each part takes one to five minutes on two quiet cores; choose some
with `-k`: `check_growth`, `seed0`, `loaded`, `libraries`, `psleak`, `memray`, `part2`. One table at the end puts side by side what
all parts that ran have found.
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
LIBRARIES = tuple(name for name, case in CASES.items() if ".libraries." in case.make.__module__)
SHORT = tuple(name for name in CASES if name not in LIBRARIES)
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


def run(tool, seed, names):
    return Runs((name, tool(name, seed)) for name in names)


def part_of(names, number, parts):
    """Every `parts`-th case, so that each part has some of every kind."""
    return names[number::parts]


def check(found, *, undecided=0.02):
    assert (found.names("clean", among="leaks"), found.names("leak", among="clean")) == ([], [])
    assert len(found.undecided) <= undecided * len(found)


def check_short(found):
    check(found)
    assert max(each.seconds for _, each in found) <= 10


def test_the_corpus_is_large_enough():
    assert len(LEAKS.intersection(SHORT)) >= 40
    assert len(set(SHORT) - LEAKS) >= 40
    assert len(LIBRARIES) >= 60


@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", SEEDS, ids="seed{}".format)
def test_check_growth(seed, runs):
    found = run(judge, seed, SHORT)
    runs["check_growth, short"] += found
    check_short(found)
    assert statistics.median(each.seconds for _, each in found) <= 0.5


@pytest.mark.timeout(900)
@pytest.mark.parametrize("part", range(LOADED_PARTS), ids="part{}".format)
def test_check_growth_loaded(part, runs):
    with stressed():
        found = run(judge, 5, part_of(SHORT, part, LOADED_PARTS))
    runs["check_growth, short, 4 busy processes beside it"] += found
    check_short(found)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", SEEDS, ids="seed{}".format)
def test_check_growth_on_libraries(seed, runs):
    found = run(judge, seed, LIBRARIES)
    runs["check_growth, libraries"] += found
    check(found, undecided=0.05)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("part", range(PEER_PARTS), ids="part{}".format)
@pytest.mark.parametrize("names", [SHORT, LIBRARIES], ids=["short", "libraries"])
@pytest.mark.parametrize("peer", PEERS)
def test_peers(peer, names, part, runs):
    if importlib.util.find_spec(peer) is None:
        pytest.skip(f"{peer} is not installed: pip install -r benchmarks/requirements.txt")
    title = f"{peer}, {'short' if names is SHORT else 'libraries'}"
    runs[title] += run(PEERS[peer], 0, part_of(names, part, PEER_PARTS))
