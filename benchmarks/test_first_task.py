"""What does a worker's first task cost in a script that imports pandas, by how its process starts?"""

import json
import os
import statistics
import subprocess
import sys
import textwrap

import pytest

pytest.importorskip("pandas")

REPEATS = int(os.environ.get("REPEATS", "3"))

PROGRAM = """
    import json, multiprocessing, sys, time
    from concurrent.futures import ProcessPoolExecutor
    import pandas
    from pytest_membudget import ExecutorPolicy, FallbackExecutor

    def rows(number):
        return len(pandas.DataFrame({"a": range(number)}))

    def executor(how):
        if how == "ours":
            return FallbackExecutor(2, budget="2 GB")
        if how == "ours, preload=('pandas',)":
            return FallbackExecutor(2, budget="2 GB", policy=ExecutorPolicy(preload=("pandas",)))
        return ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(how))

    if __name__ == "__main__":
        began_s = time.perf_counter()
        with executor(sys.argv[1]) as pool:
            assert pool.submit(rows, 10).result() == 10
            first_s = time.perf_counter() - began_s
        began_s = time.perf_counter()
        with executor(sys.argv[1]) as pool:
            assert pool.submit(rows, 10).result() == 10
            print(json.dumps([first_s, time.perf_counter() - began_s]))
    """


@pytest.mark.timeout(900)
@pytest.mark.parametrize("repeats", [REPEATS])
def test_first_task(figure, tmp_path, repeats):
    path = tmp_path / "program.py"
    path.write_text(textwrap.dedent(PROGRAM))
    ways = ["ours", "ours, preload=('pandas',)", "forkserver", "spawn"]
    found: dict[str, list[list[float]]] = {way: [] for way in ways}
    for number in range(repeats):
        for way in ways if number % 2 else reversed(ways):
            out = subprocess.check_output([sys.executable, str(path), way], text=True, timeout=120)
            found[way].append(json.loads(out))
    for way in ways:
        first_s, next_s = (statistics.median(each[moment] for each in found[way]) for moment in (0, 1))
        name = f"standard library, {way}" if way in {"forkserver", "spawn"} else way
        figure(f"{name}: first task of the program", f"{first_s * 1000:.0f} ms")
        figure(f"{name}: first task of the next executor", f"{next_s * 1000:.0f} ms")
