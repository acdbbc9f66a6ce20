import msgspec
import pytest

from pytest_membudget.errors import UnreadableFileError
from pytest_membudget.gate.baseline import load_baseline, make_baseline, save_baseline
from pytest_membudget.records.report import Environment, Report, TestRecord, encode_report
from pytest_membudget.records.storage import write_atomically

MIB = 2**20
HERE = Environment(system="Linux", machine="x86_64", python="3.11.9", limit_bytes=123, limit_source="host")


def test_of(nodeid, peak=100, **more):
    return TestRecord(**{"nodeid": nodeid, "outcome": "passed", "peak_bytes": round(peak * MIB), **more})


test_of.__test__ = False


def run(*tests, environment=HERE):
    return Report(tests=tests, environment=environment, created="2026-11-21T10:00:00")


def peaks(baseline):
    return {record.nodeid: record.peak_bytes for record in baseline.tests}


def test_it_reads_as_one_line_a_test_in_order_without_dates_or_limits(tmp_path):
    path = tmp_path / "baseline.json"
    timed = test_of("b::t", 187.3456, duration_s=1.5, processes=3, caveats=("x",), message="y")
    save_baseline(make_baseline(run(timed, test_of("a::t", 1))), path)
    assert path.read_text().splitlines() == [
        "{",
        '  "format": "membudget-report",',
        '  "version": 1,',
        '  "kind": "baseline",',
        '  "environment": {',
        '    "system": "Linux",',
        '    "machine": "x86_64",',
        '    "python": "3.11.9"',
        "  },",
        '  "tests": [',
        '    {"nodeid":"a::t","outcome":"passed","peak_bytes":1049000},',
        '    {"nodeid":"b::t","outcome":"passed","peak_bytes":196400000}',
        "  ]",
        "}",
    ]


def test_it_reads_back_as_it_was_written(tmp_path):
    baseline = make_baseline(run(test_of("a::t", samples_bytes=(5, 4, 3))))
    save_baseline(baseline, tmp_path / "b.json")
    assert load_baseline(tmp_path / "b.json") == baseline
    assert baseline.tests[0].samples_bytes == (3, 4, 5)


def test_noise_makes_no_diff():
    first = make_baseline(run(test_of("a::t", 100), test_of("b::t", 50)))
    again = make_baseline(run(test_of("b::t", 52), test_of("a::t", 99)), first)
    assert encode_report(again) == encode_report(first)


def test_changed_new_and_gone_tests_are_taken_over():
    first = make_baseline(run(test_of("a::t", 100), test_of("b::t", 50)))
    again = make_baseline(run(test_of("a::t", 150), test_of("c::other", 7)), first)
    assert peaks(again) == {"a::t": 157_300_000, "c::other": 7_340_000}


def test_skipped_failed_and_not_run_tests_keep_their_figures():
    first = make_baseline(run(test_of("a::t", 100), test_of("b::t", 50), test_of("c::t", 20)))
    part = run(TestRecord(nodeid="a::t", outcome="skipped"), test_of("b::t", 500, outcome="failed"))
    assert make_baseline(part, first, is_gone=lambda _: False) == first


def test_a_failed_test_does_not_enter():
    assert make_baseline(run(test_of("a::t", 5, outcome="failed"))).tests == ()


def test_fresh_samples_are_worth_a_new_record():
    first = make_baseline(run(test_of("a::t", 100)))
    again = make_baseline(run(test_of("a::t", 101, samples_bytes=(100 * MIB,) * 5)), first)
    assert len(again.tests[0].samples_bytes) == 5


def test_fresh_samples_that_moved_replace_those_that_scatter_keep_the_record():
    first = make_baseline(run(test_of("a::t", 100, samples_bytes=(100 * MIB,) * 5)))

    def again(mib):
        return make_baseline(run(test_of("a::t", 100, samples_bytes=(mib * MIB,) * 5)), first)

    assert again(101) == first
    assert again(150).tests[0].samples_bytes == (157_300_000,) * 5


def test_elsewhere_every_record_is_new():
    first = make_baseline(run(test_of("a::t", 100)))
    there = Environment(system="Linux", machine="aarch64", python="3.11.9")
    assert peaks(make_baseline(run(test_of("a::t", 101), environment=there), first)) == {"a::t": 105_900_000}


def test_a_baseline_is_of_the_environment_in_which_most_of_its_records_were_taken():
    first = make_baseline(run(*(test_of(f"{name}::t") for name in "abcd")))
    there = Environment(system="Linux", machine="aarch64", python="3.11.9")

    def environment_after(names, environment):
        tests = [test_of(f"{name}::t") for name in names]
        made = make_baseline(run(*tests, environment=environment), first, is_gone=lambda _: False)
        return made.environment.machine

    assert environment_after("a", there) == first.environment.machine
    assert environment_after("ab", there) == "aarch64"
    assert environment_after("abcd", there) == "aarch64"
    # Of the same environment it is of the session's, however few of its tests ran.
    assert environment_after("a", msgspec.structs.replace(HERE, cores=HERE.cores)) == HERE.machine


def test_a_renamed_test_keeps_its_record():
    first = make_baseline(run(test_of("a::test_parse", 100)))
    again = make_baseline(run(test_of("b::test_parse", 101)), first)
    assert peaks(again) == {"b::test_parse": first.tests[0].peak_bytes}


def test_a_report_is_no_baseline(tmp_path):
    path = tmp_path / "run.json"
    write_atomically(path, encode_report(run(test_of("a::t"))))
    with pytest.raises(
        UnreadableFileError, match=r'run\.json is a report of kind "report", not a baseline; make one'
    ):
        load_baseline(path)


def test_a_patch_release_of_the_kernel_is_not_in_it():
    here = Environment(system="Linux", kernel="6.18.44-cloud-v5", limit_bytes=123)
    made = make_baseline(run(test_of("a::t"), environment=here))
    assert (made.environment.kernel, made.environment.limit_bytes) == ("6.18", 0)
