"""The same question put to pytest-memray's `limit_leaks`, on 1,000 calls after 1,000 others (fewer of slow functions).

Run by pytest, which finds the case in the environment: `CASE=name SEED=0 pytest memray_peer.py`.
"""

import os
import time
from random import Random

import pytest

from growth_corpus.corpus import CASES

CALLS = 1000
MOST_S = 1.0

call = CASES[os.environ["CASE"]].make(Random(int(os.environ["SEED"])))


def call_often():
    begun = time.perf_counter()
    for _ in range(CALLS):
        call()
        if time.perf_counter() - begun > MOST_S:
            break


call_often()


@pytest.mark.limit_leaks("4 KB")
def test_case():
    call_often()
