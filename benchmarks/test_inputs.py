"""How fast are synthetic files written?"""

import pytest

from pytest_membudget import KINDS, synthesize

SIZE_BYTES = 100_000_000


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_per_second(kind, benchmark, figure, tmp_path):
    benchmark.pedantic(synthesize, (tmp_path / "file", SIZE_BYTES, kind), rounds=5, warmup_rounds=1)
    rate = SIZE_BYTES / 1e6 / benchmark.stats.stats.median
    figure(f"{kind}, 100 MB on one core", f"{rate:.0f} MB/s", "at least 100 MB/s" if kind == "csv" else "")
    if kind == "csv":
        assert rate >= 100
