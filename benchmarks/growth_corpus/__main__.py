"""Judges one case in this process and prints what was found: `python -m growth_corpus NAME SEED`."""

import json
import sys
import time
from random import Random

from growth_corpus.corpus import CASES
from pytest_membudget import check_growth


def main(name, seed):
    call = CASES[name].make(Random(seed))
    begun, busy_s = time.perf_counter(), time.process_time()
    growth = check_growth(call)
    print(
        json.dumps(
            {
                "name": name,
                "verdict": growth.verdict,
                "bytes_per_call": growth.bytes_per_call,
                "low": growth.low_bytes_per_call,
                "high": growth.high_bytes_per_call,
                "calls": growth.calls,
                "seconds": time.perf_counter() - begun,
                "cpu_seconds": time.process_time() - busy_s,
                "culprits": [f"{it.kind} {it.bytes_per_call:.1f} {it.name}" for it in growth.culprits[:3]],
                "resources": [it.kind for it in growth.resources],
                "caveats": growth.caveats,
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
