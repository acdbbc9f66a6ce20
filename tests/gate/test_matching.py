from pytest_membudget.gate.baseline import match_baseline
from pytest_membudget.records.report import Report, TestRecord

MIB = 2**20


def test_of(nodeid, peak=100):
    return TestRecord(nodeid=nodeid, outcome="passed", peak_bytes=peak * MIB)


test_of.__test__ = False


def baseline(*names):
    return Report(kind="baseline", tests=tuple(map(test_of, names)))


def test_each_test_is_told_apart():
    matching = match_baseline(
        baseline("a::same", "a::skipped", "a::gone_for_good"),
        [test_of("a::same"), TestRecord(nodeid="a::skipped", outcome="skipped"), test_of("b::brand_new")],
    )
    assert list(matching.pairs) == ["a::same"]
    assert (matching.new, matching.gone, matching.skipped, matching.renamed, matching.not_run) == (
        ("b::brand_new",),
        ("a::gone_for_good",),
        ("a::skipped",),
        (),
        (),
    )


def test_a_part_of_the_suite_loses_nothing():
    matching = match_baseline(baseline("a::one", "b::one"), [test_of("a::one")], is_gone=lambda _: False)
    assert (matching.gone, matching.renamed, matching.not_run) == ((), (), ("b::one",))


def test_a_moved_test_is_compared_with_its_old_record():
    matching = match_baseline(baseline("a.py::test_x"), [test_of("b.py::test_x", 300)])
    assert matching.renamed == (("a.py::test_x", "b.py::test_x"),)
    assert matching.pairs["b.py::test_x"].nodeid == "a.py::test_x"
    assert (matching.new, matching.gone) == ((), ())


def test_a_similar_name_with_a_similar_peak_was_renamed():
    alike = match_baseline(baseline("a.py::test_parse_html"), [test_of("a.py::test_parses_html", 101)])
    assert alike.renamed == (("a.py::test_parse_html", "a.py::test_parses_html"),)
    other_peak = match_baseline(baseline("a.py::test_parse_html"), [test_of("a.py::test_parses_html", 300)])
    other_name = match_baseline(baseline("a.py::test_parse_html"), [test_of("a.py::test_join", 100)])
    assert other_peak.renamed == other_name.renamed == ()


def test_what_could_be_either_is_neither():
    matching = match_baseline(baseline("a.py::test_x"), [test_of("b.py::test_x"), test_of("c.py::test_x")])
    assert matching.renamed == ()
    assert matching.gone == ("a.py::test_x",)


def test_thousands_of_new_names_are_matched_in_no_time():
    old = baseline(*(f"a.py::test_old_{n}" for n in range(3000)))
    matching = match_baseline(old, [test_of(f"a.py::test_new_{n}") for n in range(3000)])
    assert (len(matching.gone), len(matching.new)) == (3000, 3000)


def test_thousands_of_gone_tests_are_matched_in_no_time():
    old = baseline(*(f"a.py::test_old_{n}" for n in range(20_000)))
    assert len(match_baseline(old, []).gone) == 20_000
    assert match_baseline(old, [], is_gone=lambda _: False).not_run[0] == "a.py::test_old_0"
