"""The corpus of benchmarks/growth_corpus: a few cases here, all of them among the slow tests."""

import random
import sys
from pathlib import Path

import pytest

from pytest_membudget import check_growth

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))

from growth_corpus.corpus import CASES
from growth_corpus.run import judge

FEW = (
    "every_hundredth_call",
    "lists_under_few_keys",
    "malloc_every_tenth_call",
    "reference_never_dropped",
    "lru_cache_of_1000",
    "ring_of_cycles",
    "patterns_beyond_the_cache_of_re",
    "mapping_opened_and_closed",
)


def expected(name):
    return "leak" if CASES[name].leaks else "clean"


@pytest.mark.kernel
@pytest.mark.parametrize("name", FEW)
def test_a_few_of_the_corpus(name):
    growth = check_growth(CASES[name].make(random.Random(0)), culprits=False)
    assert growth.verdict == expected(name)


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.parametrize("name", CASES)
def test_all_of_the_corpus(name):
    assert judge(name, 0).verdict == expected(name)
