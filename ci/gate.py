"""The memory gate: runs tests and fails when one takes more than the committed baseline allows.

    python ci/gate.py             compare with ci/baseline.json; exit code 1 names what regressed
    python ci/gate.py --update    accept what was measured as the new baseline, and commit it

Further arguments go to pytest: other tests, `--membudget-tolerance="20% + 2 MiB"`, `-k pandas`. On GitHub the summary
page of the run and annotations beside the code come by themselves.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BASELINE = ROOT / "ci" / "baseline.json"
RESULTS = ROOT / "out" / "gate"
TESTS = ROOT / "examples" / "test_parsers.py"


def main() -> int:
    """The exit code of pytest: 0 fine, 1 a test failed or regressed, 4 the baseline cannot be read."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--update", action="store_true", help="write what is measured to the baseline")
    arguments, for_pytest = parser.parse_known_args()
    RESULTS.mkdir(parents=True, exist_ok=True)
    command = [
        *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider"),
        f"--membudget-baseline={BASELINE}",
        *(f"--membudget-report={RESULTS / name}" for name in ("report.md", "report.json")),
        f"--junitxml={RESULTS / 'junit.xml'}",
        *(["--membudget-update-baseline"] if arguments.update else []),
        *(for_pytest or [str(TESTS)]),
    ]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    raise SystemExit(main())
