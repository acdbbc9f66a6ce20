"""A law is told of what the scales take, not of what a process loads and keeps once; in any order, in any worker."""

import json

import pytest

pytestmark = pytest.mark.processes

KEPT = """
import mmap

_kept = []

def load(megabytes):
    "Keeps them from the first call on, like a library that is imported late."
    if not _kept:
        _kept.append(_filled(megabytes * 1_000_000))

def take(size_bytes):
    _filled(size_bytes).close()

def _filled(size_bytes):
    block = mmap.mmap(-1, max(1, size_bytes), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for start in range(0, size_bytes, 100_000):
        block.write(b"x" * min(100_000, size_bytes - start))
    return block
"""

JOB = """
import kept
import pytest

@pytest.mark.memory_scales("micro", "small", "medium", {law})
def test_job(memory_scale, tmp_path):
    (tmp_path / "made once").mkdir()
    kept.load({megabytes})
    kept.take({size})
"""

ONLY_AFTER_MICRO = JOB.replace(
    "    kept.load",
    "    assert memory_scale.name == 'micro' or 'ran' in globals()\n    globals()['ran'] = 1\n    kept.load",
)

BACKWARDS = """
def pytest_collection_modifyitems(items):
    items.reverse()
"""

THRICE = "3 * memory_scale.size_bytes"

ORDERS = pytest.mark.parametrize(
    ("megabytes", "backwards", "options"),
    [
        pytest.param(5, False, [], id="smallest first"),
        pytest.param(30, True, [], id="largest first", marks=pytest.mark.slow),
        pytest.param(30, False, ["-p", "xdist", "-n2"], id="in two workers", marks=pytest.mark.slow),
    ],
)


def run(pytester, law, size, *options, megabytes=30, backwards=False, job=JOB):
    pytester.makepyfile(kept=KEPT, test_it=job.format(law=law, size=size, megabytes=megabytes))
    if backwards:
        pytester.makeconftest(BACKWARDS)
    return pytester.runpytest_subprocess("--membudget-report=a.json", *options)


def report(pytester):
    return json.loads((pytester.path / "a.json").read_text())


@ORDERS
def test_a_law_is_not_broken_by_what_a_process_loads_once(pytester, megabytes, backwards, options):
    result = run(pytester, "law='linear'", THRICE, *options, megabytes=megabytes, backwards=backwards)
    result.assert_outcomes(passed=3)


@ORDERS
def test_growth_does_not_hide_in_what_a_process_loads_once(pytester, megabytes, backwards, options):
    result = run(pytester, "law='flat'", THRICE, *options, megabytes=megabytes, backwards=backwards)
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["*does not hold*", "*each scale run twice in a fresh interpreter*"])


@pytest.mark.parametrize(
    ("law", "size"),
    [
        pytest.param("at_most='2 B/B'", THRICE, id="slope"),
        pytest.param(
            "law='linear'", "memory_scale.size_bytes ** 2 // 2_000_000", id="worse", marks=pytest.mark.slow
        ),
    ],
)
def test_other_laws_are_broken_likewise(pytester, law, size):
    run(pytester, law, size).assert_outcomes(passed=2, failed=1)


def test_the_table_shows_what_the_law_goes_by(pytester):
    run(pytester, "law='flat'", "2_000_000").assert_outcomes(passed=3)
    (table,) = report(pytester)["scales"]
    assert [row["peak_bytes"] for row in table["rows"]] == pytest.approx([2_000_000] * 3, abs=1_000_000)
    assert table["rows"][0]["caveats"][-1].startswith("run again in a fresh interpreter")
    assert table["law"]["shape"] == "flat"


@pytest.mark.parametrize(
    ("options", "ends"),
    [
        pytest.param([], {"passed": 3}, id="as ever", marks=pytest.mark.slow),
        pytest.param(["--membudget-strict"], {"passed": 2, "failed": 1}, id="strict"),
    ],
)
def test_where_a_scale_cannot_run_by_itself_a_broken_law_is_inconclusive(pytester, options, ends):
    run(pytester, "law='flat'", THRICE, *options, job=ONLY_AFTER_MICRO).assert_outcomes(**ends)
    judged = report(pytester)["tests"][2]
    assert judged["verdict"] == "inconclusive"
    assert "run of small, which did not pass in a fresh interpreter" in judged["message"]
