"""One report with everything in it, figures as a real run would give them."""

from pytest_membudget.records.judgement import Culprit, Growth
from pytest_membudget.records.measurement import ProcessShare, TimelinePoint
from pytest_membudget.records.monitor import (
    CleanupEvent,
    MemorySnapshot,
    MonitorReport,
    Recommendation,
)
from pytest_membudget.records.report import (
    AllocationSite,
    BaselineCheck,
    CalibrationPicture,
    Comparison,
    Environment,
    Report,
    TestRecord,
)
from pytest_membudget.records.run import BatchSummary, Breakdown, HostUse
from pytest_membudget.records.scale import (
    CurvePoint,
    InFlightRow,
    InFlightTable,
    LawFit,
    Scale,
    ScaleRow,
    ScaleTable,
)

MIB = 2**20
GB = 10**9


def record(nodeid, peak, **more):
    return TestRecord(
        **{
            "nodeid": nodeid,
            "outcome": "passed",
            "verdict": "none",
            "file": nodeid.partition("::")[0],
            "line": 12,
            "peak_bytes": peak * MIB,
            "peak_upper_bytes": peak * MIB,
            "total_peak_bytes": (peak + 85) * MIB,
            "retained_bytes": 2 * MIB,
            "duration_s": 0.8,
            "processes": 1,
            "source": "kernel",
            **more,
        }
    )


def scale_row(name, rows, shape, share, status, **more):
    batches, workers, in_flight = shape
    peak = round(32 * GB * share)
    parts = [round(peak * part) for part in (0.1, 0.3, 0.35, 0.15)]
    return ScaleRow(
        scale=Scale(
            name=name, rows=rows, size_bytes=rows * 400, batches=batches, workers=workers, in_flight=in_flight
        ),
        peak_bytes=peak,
        limit_bytes=32 * GB,
        budget_bytes=30 * GB,
        duration_s=rows / 1389,
        status=status,
        timeline=tuple(TimelinePoint(step * 10.0, round(peak * step / 31)) for step in range(32)),
        breakdown=Breakdown(
            peak_bytes=peak,
            coordinator_bytes=parts[0],
            workers_base_bytes=parts[1],
            task_bytes=parts[2],
            waiting_results_bytes=parts[3],
            other_bytes=peak - sum(parts),
        ),
        **more,
    )


def full_report():
    timeline = tuple(TimelinePoint(step / 20, round(312 * MIB * min(1, step / 20))) for step in range(32))
    tests = (
        record(
            "tests/test_parse.py::test_filing[large]",
            312,
            outcome="failed",
            verdict="over",
            budget_bytes=200 * MIB,
            peak_upper_bytes=315 * MIB,
            source="sampled",
            interval_s=0.01,
            processes=3,
            timeline=timeline,
            shares=(ProcessShare(4711, "worker", 180 * MIB), ProcessShare(4700, "pytest", 132 * MIB)),
            allocations=(
                AllocationSite(("parse (filing.py:88)", "test_filing (test_parse.py:14)"), 170 * MIB, 12),
            ),
            message="peak 312 MiB > budget 200 MiB (+112 MiB, 56%)\n  measured  peak of the whole process tree",
            caveats=("a child ended before it was first seen",),
        ),
        record(
            "tests/test_parse.py::test_rows", 40, verdict="within", budget_bytes=64 * MIB, timeline=timeline
        ),
        record(
            "tests/test_cache.py::test_cache_stays",
            3,
            outcome="failed",
            verdict="leak",
            message="leak: 1000 B more per call, 64 B allowed",
            growth=Growth(
                verdict="leak",
                bytes_per_call=1000,
                low_bytes_per_call=900,
                high_bytes_per_call=1100,
                allowed_bytes_per_call=64,
                calls=2048,
                duration_s=0.5,
                culprits=(Culprit("site", "cache.py:12", 990.0),),
            ),
        ),
        record(
            "tests/test_table.py::test_join",
            150,
            outcome="failed",
            verdict="regressed",
            message="regressed: 120 MiB -> 150 MiB (+25.0%), 133 MiB allowed",
            samples_bytes=(150 * MIB,) * 5,
            comparison=Comparison(
                base_bytes=120 * MIB,
                new_bytes=150 * MIB,
                allowed_bytes=133 * MIB,
                finding="regressed",
                samples_bytes=(150 * MIB, 151 * MIB, 149 * MIB, 150 * MIB, 152 * MIB),
                p=0.004,
            ),
        ),
        TestRecord(nodeid="tests/test_table.py::test_later", outcome="skipped"),
    )
    return Report(
        environment=Environment(
            system="Linux",
            kernel="6.18.2",
            machine="x86_64",
            python="3.11.9 (CPython)",
            libc="glibc 2.36",
            page_size_bytes=4096,
            cores=8,
            limit_bytes=32 * GB,
            limit_source="host RAM",
            packages={"pandas": "3.1.1"},
        ),
        tests=tests,
        scales=(
            ScaleTable(
                title="Scales of parse",
                rows=(
                    scale_row("micro", 50_000, (1, 4, 1), 0.436, "PASS"),
                    scale_row("small", 150_000, (3, 6, 3), 0.456, "PASS"),
                    scale_row(
                        "medium",
                        500_000,
                        (10, 8, 10),
                        0.875,
                        "HIGH",
                        predicted_bytes=27 * GB,
                        predicted_bound_bytes=29 * GB,
                    ),
                ),
                law=LawFit(
                    shape="linear",
                    slope=3.3,
                    slope_bound=3.9,
                    base_bytes=13 * GB,
                    curve=tuple(
                        CurvePoint(
                            size * 20_000_000, 13 * GB + size * 66_000_000, 14 * GB + size * 78_000_000
                        )
                        for size in range(1, 12)
                    ),
                ),
            ),
        ),
        in_flight=(
            InFlightTable(
                rows=tuple(
                    InFlightRow(
                        max_in_flight=value,
                        peak_bytes=round(32 * GB * share),
                        limit_bytes=32 * GB,
                        items_per_s=rate,
                        slowdown=1 - rate / 1500,
                        predicted=value == 10,
                    )
                    for value, share, rate in (
                        (1, 0.48, 600),
                        (2, 0.53, 900),
                        (4, 0.62, 1300),
                        (10, 0.87, 1500),
                    )
                ),
                target=0.7,
                recommended=4,
                reason="the largest that stays under 70.0% of the limit",
            ),
        ),
        batches=(
            BatchSummary(
                title="test_nightly.py::test_all_files",
                inputs=500,
                failed=1,
                repeated=2,
                duration_s=27.4,
                workers=3,
                peak_bytes=90 * MIB,
                budget_bytes=3 * GB,
                limit_bytes=32 * GB,
                levels=("dask",),
                hosts=(
                    HostUse(
                        host="large<1>",
                        workers=2,
                        tasks=310,
                        budget_bytes=2 * GB,
                        peak_upper_bytes=1500 * MIB,
                    ),
                    HostUse(host="small", workers=1, tasks=191, budget_bytes=GB, peak_upper_bytes=478 * MIB),
                ),
                growth=Growth(
                    verdict="leak",
                    bytes_per_call=100_000,
                    low_bytes_per_call=99_000,
                    high_bytes_per_call=101_000,
                    allowed_bytes_per_call=0,
                    calls=96,
                    duration_s=0.0,
                    label="parse",
                ),
                events=("dask: worker tcp://10.0.0.7:4711 on host small was killed; repeats with 96 MiB",),
            ),
        ),
        monitors=(
            MonitorReport(
                label="import <1>",
                duration_s=95.0,
                peak_bytes=7 * GB,
                limit_bytes=8 * GB,
                growth_bytes_per_min=12.5 * MIB,
                growth_low_bytes_per_min=11 * MIB,
                growth_high_bytes_per_min=14 * MIB,
                snapshots=(
                    MemorySnapshot(
                        at_s=1.0,
                        rss_bytes=5 * GB,
                        uss_bytes=5 * GB,
                        vms_bytes=9 * GB,
                        available_bytes=20 * GB,
                        limit_bytes=8 * GB,
                    ),
                ),
                cleanups=(
                    CleanupEvent(
                        at_s=40.0,
                        reason="past 80% of the limit",
                        emergency=False,
                        before_bytes=7 * GB,
                        after_bytes=4 * GB,
                        failures=("drop_cache: KeyError('a')",),
                    ),
                ),
                alerts=tuple(f"alert {number}" for number in range(1, 8)),
                recommendations=(
                    Recommendation("use fewer workers: 2 in place of 3", "the peak was 6.52 GiB"),
                ),
            ),
        ),
        calibrations=(
            CalibrationPicture(
                name="app:parse",
                gamma=3.3,
                overhead_bytes=4 * MIB,
                base_bytes=60 * MIB,
                curved=False,
                points=tuple((size * MIB, round((4 + 3.3 * size) * MIB)) for size in (1, 2, 4, 8)),
                curve=tuple(
                    CurvePoint(size * MIB, round((4 + 3.3 * size) * MIB), round((6 + 3.6 * size) * MIB))
                    for size in range(1, 11)
                ),
            ),
        ),
        baseline=BaselineCheck(
            path="membudget-baseline.json",
            tolerance="10% + 1 MiB",
            accept_command="pytest --membudget-update-baseline",
            foreign=("Python 3.12, here 3.11",),
            new=("tests/test_parse.py::test_rows",),
            gone=("tests/test_old.py::test_gone",),
            renamed=(("tests/test_a.py::test_x", "tests/test_b.py::test_x"),),
        ),
        caveats=("memory of other programs was not counted",),
    )


HOSTILE = [
    "test_x.py::test[</script><script>alert(1)</script>]",
    "test_x.py::test[| a `b` **c** <b> @user #1 &amp;]",
    "test_x.py::test[``` \x1b[31mred\x1b[0m \r\n new \u2028 \u202e]",
    "test_x.py::test[\udcff lone surrogate]",
    "test_x.py::test[日本語 🧪]",
    "test_x.py::test[\"quotes' and {{ 7*7 }} {% raw %}]",
    "test_x.py::test[" + "x" * 3000 + "]",
]
