"""`make demo`: the whole job on synthetic files, from a prediction for each file to the scale table and a report."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from parsers import PARSERS, parse, warm_up
from tqdm import tqdm

from pytest_membudget import (
    BatchResult,
    Calibration,
    ExecutorPolicy,
    FallbackExecutor,
    Measurement,
    SyntheticFile,
    calibrate,
    measuring,
    memory_limit,
    synthesize,
)
from pytest_membudget.units import format_duration, format_share, format_size

HERE = Path(__file__).resolve().parent
OUTPUT = HERE.parent / "out" / "demo"
FILES = {
    "csv": ("0.5 MB", "5 MB", "20 MB"),
    "json": ("1 MB", "5 MB"),
    "xml": ("1 MB", "5 MB"),
    "html": ("0.5 MB", "1 MB"),
    "text": ("2 MB", "10 MB"),
}
LEARNED_FROM = {"html": ("100 kB", "200 kB", "400 kB")}
SMALL = ("500 kB", "1 MB", "2 MB")
ENDINGS = {"text": "txt"}
BUDGET = "1 GB"
PATIENCE_S = 10


def main() -> int:
    """Runs the demo; the exit code is that of the tests it ends with."""
    OUTPUT.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix="membudget-demo-") as folder:
            files = write_files(Path(folder))
            learned = learn()
            show_batch(*run_files(files, learned), learned)
        return judge()
    except KeyboardInterrupt:
        print("\ninterrupted; nothing was left running", file=sys.stderr)
        return 130


def write_files(folder: Path) -> list[SyntheticFile]:
    """One synthetic file of each kind and size."""
    heading("1. Synthetic files, each of exactly the asked size")
    wanted = [(kind, size) for kind, sizes in FILES.items() for size in sizes]
    files = [
        synthesize(folder / f"{size.replace(' ', '')}.{ENDINGS.get(kind, kind)}", size, kind)
        for kind, size in progress(wanted, "writing")
    ]
    total_bytes = sum(file.size_bytes for file in files)
    print(f"{len(files)} files, {format_size(total_bytes)}, {sum(file.rows for file in files):,} rows")
    return files


def learn() -> dict[str, Calibration]:
    """What each parser uses per byte of its input, from runs on small files in fresh processes."""
    heading("2. What each parser uses, learned from small files in fresh processes")
    print(f"{'kind':<8}{'bytes per input byte':>22}{'overhead':>12}")
    found = {}
    for kind in FILES:
        ending = f".{ENDINGS.get(kind, kind)}"
        learned = calibrate(PARSERS[ending], kind, LEARNED_FROM.get(kind, SMALL), repeats=1)
        print(f"{kind:<8}{learned.gamma:>22.2f}{format_size(learned.overhead_bytes):>12}", flush=True)
        found[ending] = learned
    return found


def run_files(
    files: Sequence[SyntheticFile], learned: dict[str, Calibration]
) -> tuple[BatchResult, Measurement]:
    """Parses the files in worker processes, each admitted only when its predicted memory fits."""
    heading("3. Larger files, parsed in worker processes within a memory budget")
    limit = memory_limit()
    print(f"the limit here is {format_size(limit.bytes)} ({limit.source}), the budget {BUDGET}")

    def predicted_bytes(path: Path) -> int:
        return learned[path.suffix].bound(path.stat().st_size)

    policy = ExecutorPolicy(timeout_s=None)
    with (
        measuring("batch") as probe,
        FallbackExecutor(2, budget=BUDGET, policy=policy, initializer=warm_up) as executor,
    ):
        batch = executor.run(parse, [file.path for file in files], memory=predicted_bytes)
    return batch, probe.measurement


def show_batch(batch: BatchResult, measured: Measurement, learned: dict[str, Calibration]) -> None:
    """What each file was predicted to use and what it used; then the peak of the whole process tree."""
    print(f"{'file':<12}{'size':>10}{'predicted':>11}{'at most':>10}{'used':>10}{'time':>9}  ran in")
    for outcome in batch.outcomes:
        path, size_bytes = Path(outcome.item), outcome.size_bytes or 0
        predicted_bytes = learned[path.suffix].expect(size_bytes)
        cells = (size_bytes, predicted_bytes, outcome.estimate_bytes, outcome.peak_bytes)
        texts = ["–" if size is None else format_size(size) for size in cells]
        sizes = "".join(f"{text:>{width}}" for text, width in zip(texts, (10, 11, 10, 10), strict=True))
        print(f"{path.name:<12}{sizes}{format_duration(outcome.duration_s):>9}  {outcome.level}")
        if outcome.error is not None:
            print(f"    failed ({outcome.cause}): {outcome.error}")
    print(
        f"{len(batch.outcomes)} files in {format_duration(batch.duration_s)} by {batch.workers} workers; "
        f"{measured.processes} processes together added {format_size(measured.peak_bytes)} at the peak "
        f"({format_share(measured.peak_bytes / batch.limit_bytes)} of the limit; {measured.source})"
    )
    for event in batch.events:
        print(f"  {event}")


def judge() -> int:
    """Runs the same parsers under pytest: budgets, growth over repeated runs, and the scales."""
    heading("4. The same parsers checked under pytest, at rising scales")
    report = OUTPUT / "report.html"
    command = [
        *(sys.executable, "-m", "pytest", str(HERE / "test_parsers.py"), str(HERE / "test_pipeline.py")),
        *("-c", str(HERE / "pyproject.toml"), "-q", "-p", "no:cacheprovider"),
        *("--membudget-report", f"--membudget-report={report}"),
    ]
    status = run_to_its_end(command)
    print(f"\nreport: {report.relative_to(Path.cwd()) if report.is_relative_to(Path.cwd()) else report}")
    return status


def run_to_its_end(command: Sequence[str]) -> int:
    """The command's exit code. On Ctrl-C it is given time to write what it measured."""
    with subprocess.Popen(command) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
            # A terminal sends Ctrl-C to both; a lone signal has to be passed on.
            try:
                process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGINT)
                process.wait()
            raise


def progress(items: Sequence[tuple[str, str]], doing: str) -> tqdm[tuple[str, str]]:
    """A progress bar on a terminal, nothing elsewhere."""
    return tqdm(items, desc=doing, leave=False, disable=None)


def heading(text: str) -> None:
    print(f"\n{text}", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
