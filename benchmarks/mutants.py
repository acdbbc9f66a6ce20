"""Which small changes of the code would no test notice? A seeded sample of mutations, each against the tests of its room.

    python benchmarks/mutants.py scheduler            # a room of ROOMS, 60 mutations, seed 1
    python benchmarks/mutants.py gate --count 20 --seed 7

Each mutation changes one place: a comparison or an operator is turned round, `and` becomes `or`, a condition is negated, `min`
becomes `max`, a number grows by one, or a statement that is a call or an assignment is deleted. The package is copied, changed
and tested there; nothing is changed in place. Survivors are printed with file and line: some are equivalent to the original,
the others ask for a test.
"""

from __future__ import annotations

import argparse
import ast
import itertools
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "pytest_membudget"


class Room(NamedTuple):
    """Files to mutate, and the tests that should notice."""

    files: tuple[str, ...]
    tests: tuple[str, ...]
    #: pytest's `-m`: tests of the real kernel take minutes for what scripted ones should notice in seconds
    select: str = "not slow"


ROOMS = {
    "scheduler": Room(
        tuple(
            f"runtime/executor/{name}.py" for name in ("scheduler", "task_queue", "task_watch", "worker_pool")
        ),
        tuple(
            f"tests/runtime/executor/test_{name}.py" for name in ("scheduler*", "task_watch", "worker_pool")
        ),
    ),
    "policies": Room(
        (
            "runtime/executor/attempts.py",
            "runtime/executor/local_memory.py",
            "runtime/executor/flow_control.py",
            "runtime/executor/slow_start.py",
        ),
        (
            "tests/runtime/executor/test_scheduler*.py",
            "tests/runtime/executor/test_attempts.py",
            "tests/runtime/executor/test_rules.py",
            "tests/runtime/executor/test_warm_workers.py",
        ),
    ),
    "admission": Room(("runtime/admission/*.py",), ("tests/runtime/admission",)),
    "gate": Room(("gate/*.py",), ("tests/gate",)),
    "bounds": Room(
        (
            "measurement/tree/helper/*bound*.py",
            "measurement/tree/helper/records.py",
            "measurement/tree/helper/session.py",
            "measurement/tree/helper/sampling.py",
        ),
        ("tests/measurement/tree",),
        "not slow and not kernel and not processes",
    ),
    "proc": Room(
        ("measurement/process/proc.py", "measurement/tree/helper/proc_reader.py"),
        ("tests/measurement/process/test_proc.py", "tests/measurement/tree/test_readings.py"),
    ),
}
_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
_OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult,
}
_NAMES = {"min": "max", "max": "min", "any": "all", "all": "any"}


class Mutation(NamedTuple):
    """One change: the file, where in it, what becomes of what, and the changed source."""

    file: Path
    line: int
    change: str
    source: str


def mutations(file: Path) -> Iterator[Mutation]:
    """Every single change of `file` that this script knows."""
    text = file.read_text()
    unchanged = ast.unparse(ast.parse(text))
    for index, found in enumerate(ast.walk(ast.parse(text))):
        if not _may_change(found):
            continue
        tree = ast.parse(text)
        node = next(itertools.islice(ast.walk(tree), index, None))
        before = _unparsed(node)
        change = _change(tree, node)
        if change and (source := ast.unparse(tree)) != unchanged:
            yield Mutation(file, getattr(node, "lineno", 0), f"{before[:60]!r}: {change}", source)


def _unparsed(node: ast.AST) -> str:
    return ast.unparse(node) if isinstance(node, (ast.expr, ast.stmt)) else type(node).__name__


def _may_change(node: ast.AST) -> bool:
    """Whether `node` is of a kind that is changed, so that a tree of its own is worth parsing for it."""
    match node:
        case ast.Name(id=name):
            return name in _NAMES
        case ast.Constant(value=value):
            return isinstance(value, int)
    kinds = (ast.Compare, ast.BinOp, ast.BoolOp, ast.If, ast.IfExp, ast.While, ast.Expr, ast.AugAssign)
    return isinstance(node, kinds)


def _change(tree: ast.Module, node: ast.AST) -> str:
    """Changes `node` within `tree`, and says how; empty where it is of no kind that is changed."""
    change = ""
    match node:
        case ast.Compare(ops=[operator]) if type(operator) in _COMPARISONS:
            node.ops = [_COMPARISONS[type(operator)]()]
            change = f"{type(operator).__name__} → {type(node.ops[0]).__name__}"
        case ast.BinOp(op=operator) if type(operator) in _OPERATORS:
            node.op = _OPERATORS[type(operator)]()
            change = f"{type(operator).__name__} → {type(node.op).__name__}"
        case ast.BoolOp(op=operator):
            node.op = ast.Or() if isinstance(operator, ast.And) else ast.And()
            change = f"{type(operator).__name__} → {type(node.op).__name__}"
        case ast.Name(id=name, ctx=ast.Load()) if name in _NAMES:
            node.id = _NAMES[name]
            change = f"{name} → {node.id}"
        case ast.If() | ast.IfExp() | ast.While() if not isinstance(node.test, ast.Constant):
            node.test = ast.UnaryOp(ast.Not(), node.test)
            change = "condition negated"
        case ast.Constant(value=int(value)) if not isinstance(value, bool):
            node.value = value + 1
            change = f"{value} → {value + 1}"
        case ast.Expr(value=ast.Call()) | ast.AugAssign() if _delete(tree, node):
            change = "deleted"
    return change


def _delete(tree: ast.Module, statement: ast.stmt) -> bool:
    for parent in ast.walk(tree):
        for _, block in ast.iter_fields(parent):
            if isinstance(block, list) and statement in block:
                block[block.index(statement)] = ast.copy_location(ast.Pass(), statement)
                return True
    return False


def survives(mutation: Mutation, room: Room, timeout_s: float) -> bool:
    """Whether the tests pass on the changed package; one that hangs is noticed."""
    with tempfile.TemporaryDirectory(prefix="mutant") as folder:
        copy = Path(folder) / PACKAGE.name
        shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
        (copy / mutation.file.relative_to(PACKAGE)).write_text(mutation.source)
        environment = os.environ | {"PYTHONPATH": folder, "PYTHONDONTWRITEBYTECODE": "1"}
        # `-m pytest` would put the current folder first, and the package as it should be may lie there.
        run = "import sys, pytest; sys.path.insert(0, sys.argv.pop(1)); sys.exit(pytest.main(sys.argv[1:]))"
        arguments = [
            "-q",
            "-x",
            "-p",
            "no:cacheprovider",
            *("-m", room.select),
            *(str(path) for test in room.tests for path in ROOT.glob(test)),
        ]
        command = [sys.executable, "-P", "-c", run, folder, *arguments]
        try:
            done = subprocess.run(
                command, cwd=folder, env=environment, capture_output=True, timeout=timeout_s, check=False
            )
        except subprocess.TimeoutExpired:
            return False
        return done.returncode == 0


def main() -> None:
    """Prints the survivors of one room and their share."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("room", choices=ROOMS)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--timeout", type=float, default=120.0, metavar="SECONDS", help="of one run of the tests"
    )
    parser.add_argument("--minutes", type=float, default=60.0, help="begin no further one after so long")
    arguments = parser.parse_args()
    room = ROOMS[arguments.room]
    files = sorted(file for pattern in room.files for file in PACKAGE.glob(pattern))
    found = [mutation for file in files for mutation in mutations(file)]
    sample = random.Random(arguments.seed).sample(found, min(arguments.count, len(found)))
    print(
        f"{arguments.room}: {len(sample)} of {len(found)} mutations in {len(files)} files, seed {arguments.seed}"
    )
    unchanged = Mutation(files[0], 0, "", files[0].read_text())
    if not survives(unchanged, room, arguments.timeout):
        sys.exit("the tests fail on the unchanged package, or take longer than --timeout")
    end_s = time.monotonic() + arguments.minutes * 60
    survivors = tried = 0
    for mutation in sample:
        if time.monotonic() > end_s:
            break
        tried += 1
        if survives(mutation, room, arguments.timeout):
            survivors += 1
            print(f"survived {mutation.file.relative_to(ROOT)}:{mutation.line} {mutation.change}", flush=True)
    print(f"{survivors} of {tried} survived ({survivors / max(1, tried):.0%})")


if __name__ == "__main__":
    main()
