"""`membudget calibrate`: learns γ, overhead and a bound of one function, or how many tasks may be in flight."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pytest_membudget.calibration.function_reference import parse_reference
from pytest_membudget.calibration.model import Calibration
from pytest_membudget.calibration.run_loop import calibrate
from pytest_membudget.calibration.store import calibration_path, save_named
from pytest_membudget.cli import EXIT_FAILED, EXIT_OK, EXIT_USAGE
from pytest_membudget.cli.calibrate_output import print_calibration, print_in_flight, print_use
from pytest_membudget.cli.calibrations import add_predictor_option, predictors_of
from pytest_membudget.errors import CalibrationError, UsageError
from pytest_membudget.inputs import KINDS
from pytest_membudget.units import parse_share


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's options."""
    parser.add_argument(
        "function", metavar="MODULE:FUNCTION", help="takes the path of its input, and reads it"
    )
    parser.add_argument(
        "files",
        nargs="*",
        type=Path,
        metavar="FILE",
        help="your own files or folders instead of synthetic ones",
    )
    parser.add_argument("--kind", default="csv", choices=KINDS, help="of the synthetic files (%(default)s)")
    parser.add_argument(
        "--sizes", default="1MB..8MB", metavar="SIZES", help="%(default)s doubles from end to end"
    )
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="runs of each size (%(default)s)")
    parser.add_argument("--content", default="95%", metavar="SHARE", help="of tasks to cover (%(default)s)")
    parser.add_argument("--confidence", default="95%", metavar="SHARE", help="in that (%(default)s)")
    parser.add_argument(
        "--budget-seconds", type=float, metavar="S", help="no run starts or goes on after this"
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of the order of runs and of contents"
    )
    parser.add_argument(
        "--save",
        metavar="NAME",
        help="keep it in .membudget/calibrations/NAME.json; a stopped run goes on from there",
    )
    parser.add_argument(
        "--dask",
        metavar="ADDRESS",
        help="make the runs on the hosts of this Dask cluster; a scheduler file will do as well",
    )
    add_predictor_option(parser)
    parser.add_argument("--in-flight", action="store_true", help="find the best max_in_flight instead")
    parser.add_argument("--values", default="1,2,4,8", metavar="N,N", help="of max_in_flight (%(default)s)")
    parser.add_argument("--target", default="70%", metavar="SHARE", help="of the memory limit (%(default)s)")
    parser.add_argument("--workers", type=int, metavar="N", help="worker processes (as many as fit)")


def run(arguments: argparse.Namespace) -> int:
    """Calibrates, prints what was found, and keeps it where that was asked for."""
    reference = parse_reference(arguments.function)
    if arguments.in_flight:
        return _run_in_flight(arguments)
    path = calibration_path(arguments.save) if arguments.save else None
    state = path.with_suffix(".state") if path else None
    if state is not None:
        state.parent.mkdir(parents=True, exist_ok=True)
    try:
        found = calibrate(
            reference,
            arguments.kind,
            arguments.sizes,
            arguments.repeats,
            parse_share(arguments.content),
            parse_share(arguments.confidence),
            files=arguments.files,
            predictors=predictors_of(arguments.predictor),
            seed=arguments.seed,
            budget_seconds=arguments.budget_seconds,
            state=state,
            dask=arguments.dask,
        )
    except CalibrationError as error:
        if isinstance(error.partial, Calibration):
            print_calibration(error.partial)
        print(f"membudget calibrate: {error}", file=sys.stderr)
        return EXIT_USAGE if error.not_importable else EXIT_FAILED
    print_calibration(found)
    print_use(found, reference, path)
    if arguments.save:
        print(f"saved to {save_named(found, arguments.save)}")
    return EXIT_OK


def _run_in_flight(arguments: argparse.Namespace) -> int:
    from pytest_membudget.calibration.in_flight import calibrate_in_flight, load_here

    if arguments.dask:
        raise UsageError(
            "--in-flight measures this machine; leave out --dask, or run it on the host in question"
        )
    if not arguments.files:
        raise UsageError(
            "--in-flight runs on your own files; name at least as many as the largest of --values"
        )
    reference = parse_reference(arguments.function)
    table = calibrate_in_flight(
        load_here(reference),
        arguments.files,
        values=_whole_numbers(arguments.values),
        target=parse_share(arguments.target),
        max_workers=arguments.workers,
    )
    print_in_flight(table, reference, arguments.workers)
    return EXIT_OK


def _whole_numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f'--values={text!r} is not a list of whole numbers; write "1,2,4,8"') from None
