"""`membudget size CALIBRATION FILE… --for SYSTEM`: what a job asks for, in the words of the system that runs it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from pytest_membudget.calibration.fresh_run import bare_interpreter_bytes
from pytest_membudget.calibration.other_systems import ATTEMPTS, request_for
from pytest_membudget.cli import EXIT_OK
from pytest_membudget.cli.calibrate import add_predictor_option, find_calibration
from pytest_membudget.errors import UsageError
from pytest_membudget.records.calibration import SYSTEMS
from pytest_membudget.report.job_requests import render_request
from pytest_membudget.units import parse_size


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's options."""
    parser.add_argument("calibration", metavar="CALIBRATION", help="the name it was saved by, or its file")
    parser.add_argument(
        "files", nargs="*", default=[], type=Path, metavar="FILE", help="the inputs that a job may get"
    )
    parser.add_argument("--size", metavar="SIZE", help="instead of files: one input of this size")
    parser.add_argument("--for", dest="system", required=True, choices=SYSTEMS, help="who runs the job")
    parser.add_argument(
        "--aim", default="safe", choices=("safe", "cheap"), help="few failures, or least waste (%(default)s)"
    )
    parser.add_argument(
        "--attempts", type=int, default=ATTEMPTS, metavar="N", help="each with more memory (%(default)s)"
    )
    add_predictor_option(parser)


def run(arguments: argparse.Namespace) -> int:
    """Prints the lines for the job."""
    found = find_calibration(arguments.calibration, arguments.predictor)
    request = request_for(
        found,
        _items(arguments),
        arguments.aim,
        interpreter_bytes=bare_interpreter_bytes(),
        attempts=arguments.attempts,
    )
    print(render_request(request, arguments.system))
    return EXIT_OK


def _items(arguments: argparse.Namespace) -> list[Any]:
    if arguments.files and arguments.size:
        raise UsageError("name the files, or --size and no files")
    for path in arguments.files:
        path.stat()  # a missing file is named, and not called a bad size
    return [parse_size(arguments.size)] if arguments.size else list(arguments.files)
