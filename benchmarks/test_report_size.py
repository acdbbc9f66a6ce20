"""What does it cost to show 10,000 tests? Time, peak and size of each format, each in a fresh interpreter."""

import json
import subprocess
import sys

import pytest

from pytest_membudget.units import format_duration, format_size

MIB = 1024 * 1024
WRITER = """
import json, random, sys
from pathlib import Path
from pytest_membudget import TestRecord, Report, measure, write_report
from pytest_membudget.records.measurement import ProcessShare, TimelinePoint
from pytest_membudget.records.report import CalibrationPicture
from pytest_membudget.records.scale import CurvePoint

chance = random.Random(1)

def record(number):
    peak = int(chance.lognormvariate(17, 1.2))
    over = number % 100 == 0
    return TestRecord(
        nodeid=f"tests/unit/test_module_{number % 200}.py::TestParser::test_case[{number}-some-parameter]",
        outcome="failed" if over else "passed",
        verdict="over" if over else "within",
        file=f"tests/unit/test_module_{number % 200}.py",
        line=number,
        peak_bytes=peak,
        peak_upper_bytes=peak,
        total_peak_bytes=peak + 90_000_000,
        retained_bytes=chance.randrange(10**6),
        duration_s=chance.random(),
        processes=1,
        source="kernel",
        budget_bytes=peak // 2 if over else peak * 2,
        shares=(ProcessShare(4711, "pytest", peak),),
        timeline=tuple(TimelinePoint(step / 10, peak * step // 31) for step in range(32)),
        message="peak 312 MiB > budget 200 MiB (+112 MiB, 56%)\\n" + "  how  some line of text\\n" * 8 if over else "",
        caveats=("one caveat that many tests share",) if number % 7 == 0 else (),
    )

points = tuple((size * 10**6, size * 3 * 10**6) for size in (1, 2, 4, 8))
curve = tuple(CurvePoint(size * 10**6, size * 3 * 10**6, size * 4 * 10**6) for size in range(1, 33))
fit = CalibrationPicture(name="parse", gamma=3.0, overhead_bytes=0, base_bytes=0, curved=False, points=points, curve=curve)
report = Report(tests=tuple(record(number) for number in range(10_000)), calibrations=(fit,))
path = Path(sys.argv[1])
taken = measure(write_report, report, path)
print(json.dumps([taken.duration_s, taken.peak_bytes, path.stat().st_size]))
"""


@pytest.mark.parametrize("ending", [".md", ".json", ".html"])
def test_ten_thousand_tests_are_written_quickly_and_lightly(tmp_path, figure, ending):
    command = [sys.executable, "-c", WRITER, str(tmp_path / f"report{ending}")]
    runs = [json.loads(subprocess.check_output(command)) for _ in range(3)]
    duration_s, peak_bytes, size_bytes = min(runs)
    figure(f"{ending}, 10,000 tests, time", format_duration(duration_s), "at most 2 s")
    figure(f"{ending}, 10,000 tests, peak", format_size(peak_bytes), "at most 200 MiB")
    figure(f"{ending}, 10,000 tests, size", format_size(size_bytes), "html at most 10 MB")
    assert duration_s <= 2
    assert peak_bytes <= 200 * MIB
    assert size_bytes <= 10_000_000 or ending != ".html"
