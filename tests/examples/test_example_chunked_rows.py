"""The reference's check: 50,000 rows in chunks, growth under 50 MB, peak under 8 GB, narrow columns at most half."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
import chunked_rows

pytestmark = pytest.mark.kernel


def test_50_000_rows_in_chunks_grow_by_less_than_50_mb():
    done, report = chunked_rows.process()
    assert done == 50_000
    assert len(report.chunks) == 10
    assert report.snapshots[-1].rss_bytes - report.snapshots[0].rss_bytes < chunked_rows.MOST_GROWTH_BYTES
    assert report.peak_bytes < report.limit_bytes == 8_000_000_000
    assert [event.reason for event in report.cleanups if "chunks" in event.reason] == ["every 5 chunks"] * 2


def test_narrow_columns_take_at_most_half():
    wide_bytes, narrow_bytes = chunked_rows.measure_columns()
    assert wide_bytes == pytest.approx(80_000_000, rel=0.1)
    assert narrow_bytes <= wide_bytes / 2
