"""Which line? Of thirty injected regressions, in how many is the first stack that is named the right function?"""

from pathlib import Path

from injected_regressions import ALSO_RIGHT, CASES, write_project
from tables import print_table

from pytest_membudget.gate.revisions.git import find_repository
from pytest_membudget.gate.revisions.runs import RunRequest, prepared_side
from pytest_membudget.gate.revisions.stacks import compare_stacks
from pytest_membudget.measurement.fresh.memray_run import read_stacks
from pytest_membudget.records.storage import working_folder
from pytest_membudget.units import format_size

LEAST = 27
MIB = 2**20


def first_names(project):
    """For each guilty function the first stack that is named, None where there is none."""
    repository = find_repository(project)
    nodeids = [f"test_cases.py::test_{case.guilty}" for case in CASES]
    with working_folder("revisions") as folder:
        sides = [
            prepared_side(
                repository,
                name,
                folder / side,
                request=RunRequest(["test_cases.py"]),
                progress=lambda _: None,
            )
            for name, side in (("HEAD~1", "base"), ("HEAD", "head"))
        ]
        recorded = [side.record(nodeids, folder / f"stacks-{n}") for n, side in enumerate(sides)]
        found = {}
        for case, nodeid in zip(CASES, nodeids, strict=True):
            old, new = (read_stacks(places[nodeid]) for places in recorded)
            base_top, head_top = (side.checkout.top for side in sides)
            told = compare_stacks(old, new, base_top, head_top, grew_bytes=MIB).stacks
            found[case.guilty] = told[0] if told else None
    return found


def test_the_first_name_is_the_guilty_function(figure, tmp_path, monkeypatch):
    project = tmp_path / "project"
    write_project(project)
    monkeypatch.chdir(project)
    found = first_names(Path.cwd())
    rows = [("kind", "guilty", "named first", "where", "grew", "right")]
    right = 0
    for case in CASES:
        first = found[case.guilty]
        is_right = first is not None and first.function in {
            case.guilty,
            ALSO_RIGHT.get(case.guilty, case.guilty),
        }
        right += is_right
        named = (
            ("–", "–", "–") if first is None else (first.function, first.kind, format_size(first.grew_bytes))
        )
        rows.append((case.kind, case.guilty, *named, "yes" if is_right else "no"))
    print_table("injected regressions", rows)
    figure("first name is the right function", f"{right} of {len(CASES)}", f"at least {LEAST}")
    assert right >= LEAST
