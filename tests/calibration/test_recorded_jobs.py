import pytest

from pytest_membudget import UnreadableFileError
from pytest_membudget.calibration import other_systems
from pytest_membudget.calibration.other_systems import calibrate_recorded, read_recording
from pytest_membudget.records.calibration import RecordedJob

MIB = 1024 * 1024
NEXTFLOW = """task_id\thash\tname\tstatus\texit\trealtime\t%cpu\tpeak_rss\tpeak_vmem\trchar\twchar
1\tab/1\tALIGN (a)\tCOMPLETED\t0\t1m 3s\t99%\t1.5 GB\t2 GB\t10 MB\t1 KB
2\tab/2\tALIGN (b)\tCOMPLETED\t0\t250ms\t99%\t512 MB\t2 GB\t5 MB\t1 KB
3\tab/3\tALIGN (c)\tFAILED\t137\t3s\t99%\t4 GB\t9 GB\t5 MB\t1 KB
4\tab/4\tSORT\tCACHED\t0\t-\t-\t-\t-\t-\t-
5\tab/5\tSORT\tCOMPLETED\t0\t-\t-\t7 MB\t-\t-\t-
"""
RAW = "name\tstatus\trealtime\tpeak_rss\trchar\nSORT (x)\tCOMPLETED\t63000\t1048576\t2048\n"
SNAKEMAKE = "s\th:m:s\tmax_rss\tmax_vms\tio_in\n3.5\t0:00:03\t120.50\t300.0\t0.00\n4.0\t0:00:04\tNA\t1\t1\n"
EXTENDED = (
    "s\th:m:s\tmax_rss\trule_name\tinput_size_mb\n3.5\t0:00:03\t100\tsort\t{'a.txt': 2.5, 'b.txt': 1.5}\n"
)
SACCT = """JobID|JobName|State|MaxRSS|Elapsed
7|align|COMPLETED||00:12:34
7.batch|batch|COMPLETED|2048K|00:12:34
7.0|step|COMPLETED|3M|00:00:01
8_1|align|OUT_OF_MEMORY||00:00:09
8_1.batch|batch|OUT_OF_MEMORY|9G|00:00:09
9|sort|COMPLETED||1-02:03:04
9.batch|batch|COMPLETED|1G|1-02:03:04
"""


def jobs_of(tmp_path, text, name="file.txt"):
    (tmp_path / name).write_text(text)
    return read_recording(tmp_path / name)


def job(kind, peak_bytes, size_bytes=None, duration_s=None):
    return RecordedJob(kind=kind, peak_bytes=peak_bytes, size_bytes=size_bytes, duration_s=duration_s)


def test_a_trace_of_nextflow_is_read(tmp_path):
    found = jobs_of(tmp_path, NEXTFLOW)
    assert found.jobs == (
        job("ALIGN", 1536 * MIB, 10 * MIB, 63.0),
        job("ALIGN", 512 * MIB, 5 * MIB, 0.25),
        job("SORT", 7 * MIB),
    )
    assert found.skipped == 2
    assert "sampled by Nextflow" in found.caveats[0]
    assert jobs_of(tmp_path, RAW).jobs == (job("SORT", MIB, 2048, 63.0),)


def test_benchmarks_of_snakemake_are_read(tmp_path):
    found = jobs_of(tmp_path, SNAKEMAKE, "align.tsv")
    assert found.jobs == (job("align", round(120.5 * MIB), None, 3.5),)
    assert found.skipped == 1
    assert jobs_of(tmp_path, SNAKEMAKE.replace(".", ","), "align.tsv") == found
    assert jobs_of(tmp_path, EXTENDED).jobs == (job("sort", 100 * MIB, 4 * MIB, 3.5),)


def test_sacct_is_read_with_the_steps_of_a_job_together(tmp_path):
    found = jobs_of(tmp_path, SACCT)
    assert found.jobs == (job("align", 3 * MIB, None, 754.0), job("sort", 1024 * MIB, None, 93784.0))
    assert found.skipped == 1


def test_the_peak_of_a_step_with_several_tasks_is_that_of_one(tmp_path):
    of_tasks = "JobID|JobName|State|MaxRSS|NTasks\n1|a|COMPLETED||\n1.0|a|COMPLETED|1G|{}\n"
    several = [
        any("largest task" in each for each in jobs_of(tmp_path, of_tasks.format(n)).caveats) for n in "14"
    ]
    assert several == [False, True]
    assert any("largest task" in each for each in jobs_of(tmp_path, SACCT).caveats)  # how many is not known


def test_benchmarks_of_snakemake_are_read_as_json_lines(tmp_path):
    lines = (
        '{"s": 3.5, "max_rss": 100, "rule_name": "sort", "input_size_mb": {"a.txt": 2.5, "b.txt": 1.5e-05}}',
        '{"s": 4.0, "max_rss": null}',
        '{"s": 4.0, "max_r',
    )
    found = jobs_of(tmp_path, "\n".join(lines), "align.jsonl")
    assert found.jobs == (job("sort", 100 * MIB, round(2.500015 * MIB), 3.5),)
    assert found.skipped == 2
    assert jobs_of(tmp_path, '{"s": 1, "max_rss": 2}', "align.jsonl").jobs == (
        job("align", 2 * MIB, None, 1.0),
    )


PADDED = """JobID           JobName      State     MaxRSS    Elapsed
------------ ---------- ---------- ---------- ----------
7             align-to+  COMPLETED              00:12:34
7.batch           batch  COMPLETED      2048K   00:12:34
8_1           align-to+ OUT_OF_ME+              00:00:09
8_1.batch         batch OUT_OF_ME+         9G   00:00:09
"""


def test_padded_columns_of_sacct_are_read_unless_a_job_id_is_cut(tmp_path):
    found = jobs_of(tmp_path, PADDED)
    assert (found.jobs, found.skipped) == ((job("align-to+", 2 * MIB, None, 754.0),), 1)
    assert "job names were cut" in found.caveats[-1]
    with pytest.raises(
        UnreadableFileError, match=r"job ids that were cut, such as '12345678_10\+'; print it with"
    ):
        jobs_of(tmp_path, PADDED + "12345678_10+      batch  COMPLETED      2048K   00:12:34\n")


@pytest.mark.parametrize(
    "text", ["", "a\tb\n1\t2\n", "JobID JobName State MaxRSS\n1 a COMPLETED 2K\n", "\0\0|\t", '{"a": 1}']
)
def test_anything_else_is_refused(tmp_path, text):
    with pytest.raises(UnreadableFileError, match=r"is no record of jobs; give .* sacct --parsable2"):
        jobs_of(tmp_path, text)


def test_torn_and_odd_rows_are_left_out(tmp_path):
    found = jobs_of(tmp_path, NEXTFLOW + "6\tab/6\tSORT\n7\tx\t\tCOMPLETED\t0\t\t\t1e999 GB\t\t\t\n")
    assert len(found.jobs) == 3
    assert found.skipped == 4


def test_jobs_are_calibrated_by_size_where_it_is_known_and_else_by_none():
    sized = calibrate_recorded(
        "ALIGN", [job("ALIGN", (100 + 3 * size) * MIB, size * MIB) for size in (1, 2, 4, 8)]
    )
    assert sized.gamma == pytest.approx(3, rel=0.01)
    assert sized.file.peak_of == "job"
    plain = calibrate_recorded("SORT", [job("SORT", peak * MIB) for peak in (100, 102, 99, 101)])
    assert plain.expect("any item") == pytest.approx(100.5 * MIB, rel=0.01)
    assert plain.bound("9 GB") >= 102 * MIB
    assert plain.estimator("safe").estimate_file_memory("any item") >= 102 * MIB


@pytest.mark.parametrize("content", [b"", b"\x00\r\x01\xff|\r\n\r", b"name\tstatus\rA\tCOMPLETED"])
def test_what_is_no_record_is_said_in_one_sentence(tmp_path, content):
    (tmp_path / "odd").write_bytes(content)
    with pytest.raises(UnreadableFileError, match=r"odd is .*no record of jobs; give a Nextflow trace"):
        read_recording(tmp_path / "odd")


def test_a_job_that_nextflow_took_from_its_cache_counts_with_its_figures(tmp_path):
    found = jobs_of(tmp_path, "name\tstatus\trealtime\tpeak_rss\trchar\nA\tCACHED\t3s\t2 MB\t1 MB\n")
    assert found.jobs == (job("A", 2 * MIB, MIB, 3.0),)


TRACE = "name\tstatus\trealtime\tpeak_rss\trchar\nA\tCOMPLETED\t3s\t{}\t1 MB\n"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_what_an_editor_saved_is_read_with_its_mark(tmp_path, encoding):
    (tmp_path / "trace").write_text(TRACE.format("2 MB"), encoding=encoding)
    assert read_recording(tmp_path / "trace").jobs == (job("A", 2 * MIB, MIB, 3.0),)


@pytest.mark.parametrize("separator", [",", ";"])
def test_columns_may_be_separated_otherwise(tmp_path, separator):
    text = TRACE.format("2 MB").replace("\t", separator)
    assert jobs_of(tmp_path, text).jobs == (job("A", 2 * MIB, MIB, 3.0),)


@pytest.mark.parametrize(
    ("peak", "peak_bytes"), [("1,5 GB", 1536 * MIB), ("1,500 MB", None), ("99999999999 GB", None)]
)
def test_a_decimal_comma_is_read_and_what_is_no_size_is_left_out(tmp_path, peak, peak_bytes):
    found = jobs_of(tmp_path, TRACE.format(peak))
    assert [each.peak_bytes for each in found.jobs] == ([peak_bytes] if peak_bytes else [])
    assert found.skipped == (0 if peak_bytes else 1)


def test_a_row_that_is_read_twice_counts_once(tmp_path):
    found = jobs_of(tmp_path, 2 * TRACE.format("2 MB"))
    assert (len(found.jobs), found.skipped, found.repeated) == (1, 0, 2)  # the header as well


def test_an_attempt_that_was_queued_again_leaves_its_peak_to_itself(tmp_path):
    found = jobs_of(
        tmp_path,
        "JobID|JobName|State|MaxRSS|Elapsed\n1|a|NODE_FAIL||00:01:00\n1.batch|batch|CANCELLED|9G|00:01:00\n"
        "1|a|COMPLETED||00:01:00\n1.batch|batch|COMPLETED|5M|00:01:00\n",
    )
    assert (found.jobs, found.skipped) == ((job("a", 5 * MIB, None, 60.0),), 1)


def test_of_very_many_jobs_the_latest_and_the_largest_are_fitted(monkeypatch):
    monkeypatch.setattr(other_systems, "_MOST_JOBS", 20)
    jobs = [job("A", 900 * MIB, MIB), *(job("A", (100 + n % 7) * MIB, n * MIB) for n in range(1, 30))]
    found = calibrate_recorded("A", jobs)
    assert len(found.points) == 21
    assert found.points[0].peak_bytes == 900 * MIB
    assert "of 30 jobs the latest 20 and the largest were fitted" in found.caveats
