"""Each run of a calibration has doubts with figures of its own; the calibration says the largest of each."""

from calibrated_functions import tenfold

from pytest_membudget.calibration.plan import plan_synthetic
from pytest_membudget.calibration.run_loop import CalibrationJob
from pytest_membudget.calibration.worker import refer_to
from pytest_membudget.records.calibration import CalibrationRun
from pytest_membudget.records.measurement import Caveat

MIB = 1024 * 1024


def run(size_bytes, *doubts):
    return CalibrationRun(
        asked_bytes=size_bytes,
        repeat=0,
        size_bytes=size_bytes,
        peak_bytes=10 * size_bytes,
        warm_bytes=MIB,
        duration_s=0.1,
        doubts=doubts,
    )


def test_of_one_doubt_the_largest_is_said():
    pool, other = (Caveat("pool-at-end", 5 * MIB, name) for name in ("pyarrow", "another"))
    larger = Caveat("pool-at-end", 9 * MIB, "pyarrow")
    plan = plan_synthetic((MIB, 2 * MIB, 4 * MIB), 1, "text", 0)
    job = CalibrationJob(refer_to(tenfold), "text", {}, 0, plan, 0.95, 0.95, None, None)
    found = job.fit([run(MIB, pool), run(2 * MIB, larger, other), run(4 * MIB, pool)])
    assert found is not None
    assert sorted(found.file.caveats) == sorted([str(other), str(larger)])
