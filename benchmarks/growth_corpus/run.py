"""Runs one case in a process of its own and says what each tool found."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
PATIENCE_S = 30


class Found(NamedTuple):
    verdict: str
    seconds: float
    cpu_seconds: float = 0.0


def judge(name, seed):
    """`check_growth`, as it comes."""
    return _answer([sys.executable, "-m", "growth_corpus", name, str(seed)])


def judge_with_psleak(name, seed):
    """psleak, as it comes, with the allocator it asks for."""
    return _answer(
        [sys.executable, "-m", "growth_corpus.psleak_peer", name, str(seed)], PYTHONMALLOC="malloc"
    )


def judge_with_memray(name, seed):
    """pytest-memray's `limit_leaks`."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "--memray",
        "-p",
        "no:membudget",
        "-p",
        "no:cacheprovider",
    ]
    begun = time.perf_counter()
    done = _run([*command, "-o", "addopts=", str(HERE / "memray_peer.py")], CASE=name, SEED=str(seed))
    verdict = {0: "clean", 1: "leak"}.get(done.returncode, "failed") if done else "too long"
    return Found(verdict, time.perf_counter() - begun)


def _answer(command, **environment):
    done = _run(command, **environment)
    if done is None:
        return Found("too long", PATIENCE_S)
    if done.returncode or not done.stdout:
        return Found("failed", 0.0)
    answer = json.loads(done.stdout.splitlines()[-1])
    return Found(answer["verdict"], answer["seconds"], answer["cpu_seconds"])


def _run(command, **environment):
    path = os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    try:
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
            env={**os.environ, "PYTHONPATH": path, **environment},
            start_new_session=True,  # what functions leave behind is told apart by that
        )
    except subprocess.TimeoutExpired:
        return None
