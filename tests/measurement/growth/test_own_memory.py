"""What a check itself allocates between two samples is no growth of the function that it calls."""

import json
import subprocess
import sys

import pytest

from pytest_membudget.stats.growth import LITTLE_BYTES

pytestmark = [pytest.mark.kernel, pytest.mark.processes]

FRESH = """
import json
from pytest_membudget.measurement.growth import caches, culprits, judge, repeat, samples
from pytest_membudget.measurement.growth.check import old_objects_frozen

CALLED = "def f%d(): return [object() for _ in range(3)]"  # each on a line of its own: tracing keeps one place for each
functions = {}
exec("\\n".join(CALLED % number for number in range(400)), functions)

def call():
    for number in range(400):
        functions[f"f{number}"]()

with old_objects_frozen():
    reader = samples.FigureReader()
    rounds = repeat.Rounds(call, reader, 10.0)
    while rounds.calls < 50:
        rounds.advance(10)
    figures = rounds.trends(0)
    seems_to_grow = figures | {"heap_bytes": figures["heap_bytes"]._replace(grown=3000.0)}

    def keep_a_megabyte():
        with rounds.without_own_memory(0.0):
            globals()["kept"] = bytearray(1 << 20)

    instruments = {
        "none": lambda: None,
        "statistics": lambda: rounds.trends(0),
        "search for caches": lambda: (rounds.remember_caches(), rounds.filled_caches()),
        "databases": lambda: rounds.shrink_databases(1),
        "origin of files": lambda: rounds.origin_of_files(0.02),
        "machine": lambda: judge.Caps.for_this_machine(rounds.first),
        "tracing": lambda: [culprits.python_allocates(rounds, seems_to_grow) for _ in range(2)],
        "one that keeps a megabyte": keep_a_megabyte,
    }
    left = {}
    for name, use in instruments.items():
        before = reader.read()
        use()
        left[name] = reader.read().heap_bytes - before.heap_bytes
print(json.dumps(left))
"""


def test_a_checks_own_instruments_add_nothing_to_a_later_sample():
    done = subprocess.run([sys.executable, "-c", FRESH], capture_output=True, text=True, check=True)
    left = json.loads(done.stdout.splitlines()[-1])
    assert len(left) == 8
    assert {name: left_bytes for name, left_bytes in left.items() if left_bytes > LITTLE_BYTES} == {}
