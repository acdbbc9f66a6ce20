"""Does memory stay flat over a stream of very many inputs?

INPUTS numbers (200,000 by default; a million takes some minutes) through `stream`, in a program of its own. What its process tree
without workers holds is read along the way: the highest after the first tenth against the first tenth.
"""

import json
import os
import subprocess
import sys
import textwrap

INPUTS = int(os.environ.get("INPUTS", "200000"))
MB = 1_000_000

PROGRAM = """
    import json, sys, time
    from pytest_membudget import FallbackExecutor

    def resident():
        with open("/proc/self/status") as status:
            return int(status.read().split("VmRSS:")[1].split()[0]) * 1024

    if __name__ == "__main__":
        count, total, early, late = int(sys.argv[1]), 0, 0, 0
        began_s = time.monotonic()
        with FallbackExecutor(2, budget="1 GB") as executor:
            for number, outcome in enumerate(executor.stream(abs, range(-count, 0))):
                total += outcome.value
                if number % 1000 == 0:
                    if number <= count // 10:
                        early = max(early, resident())
                    else:
                        late = max(late, resident())
        assert total == count * (count + 1) // 2
        print(json.dumps([early, late, time.monotonic() - began_s]))
    """


def test_memory_is_flat_over_a_long_stream(tmp_path, figure):
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(PROGRAM))
    out = subprocess.check_output([sys.executable, str(program), str(INPUTS)], text=True, timeout=3000)
    early, late, seconds = json.loads(out)
    figure(f"{INPUTS} inputs", f"{INPUTS / seconds:.0f} a second")
    figure("resident in the first tenth", f"{early / MB:.1f} MB")
    figure("at most after that", f"{late / MB:.1f} MB", "at most 2 MB more")
    assert late - early <= 2 * MB
