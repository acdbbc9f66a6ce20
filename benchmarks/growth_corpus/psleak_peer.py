"""The same question put to psleak: `PYTHONMALLOC=malloc python -m growth_corpus.psleak_peer NAME SEED`."""

import json
import sys
import time
from random import Random

import psleak

from growth_corpus.corpus import CASES


class _Test(psleak.MemoryLeakTestCase):
    def runTest(self): ...  # noqa: N802 - unittest's name


def main(name, seed):
    call = CASES[name].make(Random(seed))
    begun, busy_s = time.perf_counter(), time.process_time()
    try:
        _Test().execute(call)
        verdict = "clean"
    except psleak.Error:
        verdict = "leak"
    took_s, busy_s = time.perf_counter() - begun, time.process_time() - busy_s
    print(json.dumps({"name": name, "verdict": verdict, "seconds": took_s, "cpu_seconds": busy_s}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
