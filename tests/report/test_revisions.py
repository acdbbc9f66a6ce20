import json
import xml.etree.ElementTree as ET

from pytest_membudget.records.comparison import FlameFrame, RevisionComparison, RevisionTest, StackGrowth
from pytest_membudget.report.comparisons import (
    describe_stack,
    error_rate,
    page_of_revisions,
    render_revisions_json,
    write_revisions,
)
from pytest_membudget.report.markdown import markdown_page
from pytest_membudget.report.pictures import draw_flame_graph
from pytest_membudget.report.terminal import lay_out_page

MIB = 2**20
STACK = StackGrowth(
    function="rows",
    file="shop.py",
    line=4,
    kind="native",
    base_bytes=2 * MIB,
    head_bytes=12 * MIB,
    stack=("rows (shop.py:4)", "test_<i> (t.py:1)"),
    inner=("inflate",),
)
FLAME = FlameFrame(
    name="all",
    base_bytes=10,
    head_bytes=20,
    children=(
        FlameFrame(name="f <x>", base_bytes=10, head_bytes=5),
        FlameFrame(name="g", base_bytes=0, head_bytes=15),
    ),
)
COMPARISON = RevisionComparison(
    base="a" * 40,
    head="b" * 40,
    base_name="main",
    head_name="HEAD",
    tolerance="3% + 512 KiB",
    error_rate=0.01,
    suspected=2,
    sessions=18,
    duration_s=40,
    only_head=("t.py::new",),
    tests=(
        RevisionTest(
            nodeid="t.py::test_<i>",
            verdict="regressed",
            base_bytes=10 * MIB,
            head_bytes=20 * MIB,
            runs=18,
            stacks=(STACK,),
            flame=FLAME,
        ),
        RevisionTest(nodeid="t.py::zero", verdict="equivalent", base_bytes=0, head_bytes=0, runs=4),
    ),
)


def test_the_terminal_shows_what_regressed_with_its_stacks_and_the_error_rate():
    text = lay_out_page(page_of_revisions(COMPARISON), width=110)
    assert "10.0 MiB  20.0 MiB  +100.0%    18  regressed" in text
    assert "+10.0 MiB  rows (shop.py:4) < test_<i> (t.py:1), in inflate [native]" in text
    assert "1 test measured at the head alone: t.py::new" in text
    assert "aaaaaaaaaaaa → bbbbbbbbbbbb: 1 regressed, 0 improved, 0 inconclusive, 1 equivalent" in text


def test_the_error_rate_comes_with_its_formula():
    assert error_rate(COMPARISON).endswith("1.0% = 2 tests run again × 2 directions × 0.2% (Bonferroni)")


def test_json_has_the_stacks_and_their_growth():
    first = json.loads(render_revisions_json(COMPARISON))["tests"][0]
    assert (first["verdict"], first["change"], first["stacks"][0]["grew_bytes"]) == (
        "regressed",
        1.0,
        10 * MIB,
    )


def test_markdown_and_page_escape_names_and_each_graph_is_a_file(tmp_path):
    assert "`t.py::test_<i>`" in markdown_page(page_of_revisions(COMPARISON))
    write_revisions(COMPARISON, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "test_&lt;i&gt;" in page.replace("<wbr>", "")
    assert "test_<i>" not in page
    assert ET.parse(tmp_path / "page.flame-1.svg").getroot().tag.endswith("svg")


def test_a_child_process_is_named():
    child = StackGrowth(
        function="job", file="job.py", line=1, kind="child", base_bytes=0, head_bytes=MIB, process="job.py 3"
    )
    assert describe_stack(child).strip() == "+1.00 MiB  job (job.py:1), child process job.py 3"


def test_a_flame_graph_is_as_wide_as_both_sides_and_coloured_by_the_change():
    graph = ET.fromstring(draw_flame_graph(FLAME, title="t", standalone=True))
    boxes = [element for element in graph.iter() if element.tag.endswith("rect")]
    assert [box.get("class") for box in boxes] == ["gained", "lost", "gained"]
    widths = [float(box.get("width")) for box in boxes]
    assert widths == [1000, 400, 600]
