"""`calibrate(…, dask=…)`: a real scheduler and a real worker, each run in a process of its own beside the worker."""

import tempfile
from pathlib import Path

import calibrated_functions as functions
import psutil
import pytest

from dask_cluster import HOST, DaskCluster
from pytest_membudget import CalibrationError, calibrate, load_calibration, synthesize
from pytest_membudget.calibration import run_executors as on_cluster
from pytest_membudget.calibration.plan import PlannedRun, differing_hosts, environment_of
from pytest_membudget.calibration.worker import FunctionReference
from pytest_membudget.cli import main
from pytest_membudget.records.calibration import CalibrationRun
from pytest_membudget.records.report import Environment
from pytest_membudget.runtime.cluster import launcher
from waiting import wait_until

pytest.importorskip("distributed")
pytestmark = [pytest.mark.processes, pytest.mark.timeout(180), pytest.mark.xdist_group(__name__)]
SIZES = ("50 kB", "100 kB", "200 kB")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    cluster = DaskCluster(tmp_path_factory.mktemp("dask"))
    try:
        cluster.temporary = tmp_path_factory.mktemp("there")
        cluster.worker = cluster.add_plain_worker(
            "--resources", "MEMORY=500000000", TMPDIR=str(cluster.temporary)
        )
        yield cluster
    finally:
        assert not cluster.close()


@pytest.fixture(autouse=True)
def nothing_is_left(cluster, tmp_path, monkeypatch):
    """Neither here nor there: no file, and no process of a run."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield
    assert [path for path in tmp_path.iterdir() if path.name.startswith("membudget")] == []
    wait_until(lambda: not list(cluster.temporary.glob("membudget*")))
    assert psutil.Process(cluster.worker.pid).children() == []


def short(cluster, fn, **options):
    return calibrate(
        fn, **{"sizes": SIZES, "repeats": 1, "progress": False, "dask": cluster.scheduler_file, **options}
    )


def test_runs_are_made_and_measured_there(cluster):
    found = short(cluster, functions.tenfold_elsewhere, kind="text", sizes=("1 MB", "2 MB", "4 MB"))
    assert found.gamma == pytest.approx(11, rel=0.15)
    assert sorted(point.size_bytes for point in found.points) == [1_000_000, 2_000_000, 4_000_000]
    assert found.file.environment.hosts == (HOST,)
    assert found.file.environment.python.startswith("CPython 3")
    assert found.base_bytes > 0
    assert all("as pickled" in each for each in found.caveats)  # it returns what it made


def test_small_files_of_ones_own_travel(cluster, tmp_path):
    files = [synthesize(tmp_path / f"{size}.csv", size).path for size in (50_000, 100_000, 150_000)]
    found = short(cluster, functions.only_copies, files=files)
    assert sorted(point.size_bytes for point in found.points) == [50_000, 100_000, 150_000]


def test_a_large_file_that_is_missing_there_is_told_with_the_host(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(on_cluster, "SENT_UP_TO_BYTES", 0)
    order_for = on_cluster.order_for

    def order_and_remove(*arguments, **options):
        order = order_for(*arguments, **options)
        for file in order.own_files:
            Path(file.path).unlink(missing_ok=True)
        return order

    monkeypatch.setattr(on_cluster, "order_for", order_and_remove)
    files = [synthesize(tmp_path / f"{size}.csv", size).path for size in (50_000, 100_000, 150_000)]
    with pytest.raises(CalibrationError, match=rf"50000\.csv \(48\.8 KiB .*is not found on host {HOST}"):
        short(cluster, functions.tenfold, files=files)


def test_a_function_that_is_missing_there_is_told_with_the_host(cluster, tmp_path, monkeypatch):
    module = tmp_path / "only_there_once.py"
    module.write_text("def read(path):\n    return open(path).read()\n")
    monkeypatch.syspath_prepend(tmp_path)
    import only_there_once

    module.unlink()
    with pytest.raises(
        CalibrationError, match=f"cannot be imported .* on host {HOST}: ModuleNotFound"
    ) as info:
        short(cluster, only_there_once.read)
    assert info.value.not_importable


def test_a_function_that_fails_there_is_named_with_size_and_host(cluster):
    with pytest.raises(CalibrationError, match=f"at 200 kB on host {HOST}: ValueError: too many columns"):
        short(cluster, functions.fails_above_100_kb)


def test_a_run_that_is_killed_ends_neither_the_worker_nor_the_others(cluster):
    with pytest.raises(CalibrationError, match=r"SIGKILL.*; 0 of 3 runs were measured"):
        short(cluster, functions.is_killed)
    assert cluster.worker.poll() is None


def test_what_runs_there_ends_when_the_calibration_is_stopped(cluster, tmp_path, monkeypatch):
    marker = tmp_path / "at work"
    paths = [tmp_path / f"{number}.txt" for number in range(3)]
    for number, path in enumerate(paths):
        path.write_text(f"{marker}\n" + "x" * number)

    class Interrupted(launcher.HostPool):
        def _replies_soon(self):
            if marker.exists():
                marker.unlink()
                raise KeyboardInterrupt
            return super()._replies_soon()

    monkeypatch.setattr(launcher, "HostPool", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        short(cluster, functions.marks_and_hangs, files=paths)


def test_a_script_that_is_missing_there_travels(cluster, tmp_path):
    script = tmp_path / "script.py"
    script.write_text("def read(path):\n    return open(path).read()\n")
    reference = FunctionReference(module="__main__", name="read", script=str(script))
    run = PlannedRun(size_bytes=50_000, repeat=0)
    order = on_cluster.order_for("token", reference, run, run, kind="csv", seed=0, timeout_s=None)
    script.unlink()
    assert on_cluster.carry_out(order).failed_at == ""


def test_the_command_says_where_it_measured(cluster, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reader_there.py").write_text("def read(path):\n    return open(path).read()\n")
    words = ["--sizes", "50kB..200kB", "--repeats", "1", "--dask", cluster.address, "--save", "reader"]
    assert main(["calibrate", "reader_there:read", *words]) == 0
    assert f"measured on {HOST}\n" in capsys.readouterr().out
    saved = load_calibration(tmp_path / ".membudget" / "calibrations" / "reader.json")
    assert saved.file.environment.hosts == (HOST,)


def test_a_cluster_that_cannot_be_used_is_named(cluster, monkeypatch, capsys):
    monkeypatch.setattr("pytest_membudget.runtime.cluster.connection.CONNECT_S", 0.2)
    words = ["calibrated_functions:tenfold", "--dask", "tcp://127.0.0.1:1"]
    assert main(["calibrate", *words]) == 1
    assert "no Dask scheduler answers at tcp://127.0.0.1:1" in capsys.readouterr().err
    assert main(["calibrate", *words, "--in-flight"]) == 2


def test_hosts_that_differ_are_told():
    runs = [
        CalibrationRun(
            asked_bytes=1, repeat=0, size_bytes=1, peak_bytes=1, warm_bytes=1, duration_s=1.0,
            environment=Environment(hosts=(host,), libc=libc, machine="x86_64"),
        )
        for host, libc in [("b", "glibc 2.36"), ("a", "glibc 2.36"), ("c", "musl 1.2")]
    ]  # fmt: skip
    assert environment_of(runs).hosts == ("a", "b", "c")
    assert list(differing_hosts(runs)) == ["hosts differ: libc is 'glibc 2.36' on b and 'musl 1.2' on c"]
