"""`make demo`: the whole job on synthetic files, from a prediction for each file to the scale table and a report."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from parsers import parse
from tqdm import tqdm

from pytest_membudget import (
    BatchResult,
    FallbackExecutor,
    Measurement,
    SyntheticFile,
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
ENDINGS = {"text": "txt"}
PATIENCE_S = 10


def main() -> int:
    """Runs the demo; the exit code is that of the tests it ends with."""
    OUTPUT.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix="membudget-demo-") as folder:
            files = write_files(Path(folder))
            show_batch(*run_files(files))
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


def run_files(files: Sequence[SyntheticFile]) -> tuple[BatchResult, Measurement]:
    """Parses the files in worker processes, each admitted only when what it is expected to take fits."""
    heading("2. Parsed by real parsers in worker processes, under a memory budget")
    limit = memory_limit()
    print(f"the limit here is {format_size(limit.bytes)} ({limit.source})")
    with measuring("batch") as probe, FallbackExecutor() as executor:
        batch = executor.run(parse, [file.path for file in files])
    return batch, probe.measurement


def show_batch(batch: BatchResult, measured: Measurement) -> None:
    """What each file was expected to take and what it took; then the peak of the whole process tree."""
    print(f"{'file':<14}{'size':>10}{'expected':>10}{'took':>10}{'time':>9}  ran in")
    for outcome in batch.outcomes:
        cells = (outcome.size_bytes, outcome.estimate_bytes, outcome.peak_bytes)
        sizes = "".join(f"{'–' if size is None else format_size(size):>10}" for size in cells)
        print(
            f"{Path(outcome.item).name:<14}{sizes}{format_duration(outcome.duration_s):>9}  {outcome.level}"
        )
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
    heading("3. The same parsers judged under pytest, at rising scales")
    # The page with pictures needs the extra `html`; Markdown is always there.
    report = OUTPUT / ("report.html" if find_spec("jinja2") else "report.md")
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
