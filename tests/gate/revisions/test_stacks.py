from pathlib import Path

from pytest_membudget.gate.revisions.stacks import compare_stacks
from pytest_membudget.measurement.fresh.memray_run import RecordedStack

MIB = 2**20
BASE, HEAD = Path("/tmp/b"), Path("/tmp/h")
LIBRARY = "/env/site-packages/lib/core.py"
CALLER = [("pytest_pyfunc_call", "/env/site-packages/_pytest/python.py", 1), ("main", "/env/bin/pytest", 1)]


def stack(top, *frames, mib, caller=tuple(CALLER), **fields):
    """Frames as "function file:line", the innermost first; files without a slash at their front lie in the project."""
    found = []
    for frame in frames:
        function, place = frame.split()
        file, line = place.rsplit(":", 1)
        found.append((function, file if file.startswith("/") else f"{top}/{file}", int(line)))
    return RecordedStack(frames=(*found, *caller), size_bytes=round(mib * MIB), **fields)


def compared(base, head, grew_mib=10):
    old = [stack(BASE, *each.pop("frames"), **each) for each in base]
    new = [stack(HEAD, *each.pop("frames"), **each) for each in head]
    return compare_stacks(old, new, BASE, HEAD, grew_bytes=grew_mib * MIB)


def test_the_function_of_the_project_whose_bytes_grew_most_comes_first():
    test = "test_a tests/t.py:9"
    found = compared(
        [
            {"frames": [f"concat {LIBRARY}:3", "join src/a.py:10", test], "mib": 30},
            {"frames": ["rows src/a.py:20", test], "mib": 5},
        ],
        [
            {"frames": [f"concat {LIBRARY}:3", "join src/a.py:14", test], "mib": 31},
            {"frames": [f"empty {LIBRARY}:8", "rows src/a.py:24", test], "mib": 8},
            {"frames": [f"copy {LIBRARY}:9", "rows src/a.py:25", test], "mib": 7},
        ],
    )
    assert [(each.function, each.grew_bytes // MIB) for each in found.stacks] == [("rows", 10), ("join", 1)]
    first = found.stacks[0]
    assert (first.file, first.base_bytes, first.head_bytes) == ("src/a.py", 5 * MIB, 15 * MIB)
    assert first.stack[-1] == "test_a (tests/t.py:9)"
    assert first.inner == ("empty (…/lib/core.py:8)",)


def test_a_comprehension_goes_by_the_function_around_it():
    found = compared([], [{"frames": ["<listcomp> src/a.py:3", "rows src/a.py:2"], "mib": 10}])
    assert [(each.function, each.inner) for each in found.stacks] == [("rows", ("<listcomp> (src/a.py:3)",))]


def test_native_code_and_children_are_told_apart():
    found = compared(
        [],
        [
            {"frames": ["load src/a.py:1"], "mib": 6, "native": ("inflate",)},
            {"frames": ["job src/job.py:1"], "mib": 9, "process": f"{HEAD}/src/job.py 3", "caller": ()},
            {"frames": ["rows src/a.py:2"], "mib": 3},
        ],
    )
    assert [(each.kind, each.function, each.process) for each in found.stacks] == [
        ("child", "job", "src/job.py 3"),
        ("native", "load", ""),
        ("python", "rows", ""),
    ]
    assert found.stacks[1].inner == ("inflate",)


def test_what_pytest_itself_holds_is_left_out():
    runner = (("_multicall", "/env/site-packages/pluggy/_callers.py", 5),)
    found = compared(
        [], [{"frames": [], "mib": 20, "caller": runner}, {"frames": ["f src/a.py:1"], "mib": 10}]
    )
    assert [each.function for each in found.stacks] == ["f"]


def test_a_growth_that_the_heap_does_not_show_names_the_largest_and_says_so():
    same = {"frames": ["table src/a.py:1"], "mib": 24}
    found = compared([dict(same)], [dict(same), {"frames": ["sum src/a.py:2"], "mib": 0.1}])
    assert [each.function for each in found.stacks] == ["table", "sum"]
    assert "memory by 10.0 MiB" in found.caveats[0]


def test_the_flame_graph_has_both_sides_and_its_parts_add_up():
    found = compared(
        [{"frames": ["f a.py:1"], "mib": 4}],
        [{"frames": ["f a.py:2"], "mib": 6}, {"frames": ["g a.py:9"], "mib": 1}],
    )
    assert (found.flame.base_bytes, found.flame.head_bytes) == (4 * MIB, 7 * MIB)
    assert [
        (child.name, child.base_bytes // MIB, child.head_bytes // MIB) for child in found.flame.children
    ] == [
        ("f (a.py)", 4, 6),
        ("g (a.py)", 0, 1),
    ]
