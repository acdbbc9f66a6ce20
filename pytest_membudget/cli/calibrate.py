"""`membudget calibrate`: γ, overhead and a bound of one function, or how many of its tasks may be in flight.

`membudget synthesize` makes one of the files that it would run the function on.
"""

from __future__ import annotations

import argparse
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from pytest_membudget.calibration.in_flight import calibrate_in_flight
from pytest_membudget.calibration.model import Calibration
from pytest_membudget.calibration.run_loop import calibrate
from pytest_membudget.calibration.store import (
    calibration_path,
    load_calibration,
    named_calibration,
    save_named,
)
from pytest_membudget.calibration.worker import FunctionReference, load_here, parse_reference
from pytest_membudget.cli import EXIT_FAILED, EXIT_OK, EXIT_USAGE, Command, print_page, say
from pytest_membudget.errors import CalibrationError, UsageError
from pytest_membudget.inputs import KINDS, synthesize
from pytest_membudget.records.calibration import CalibrationQuality
from pytest_membudget.records.scale import InFlightTable
from pytest_membudget.report.job_tables import in_flight_table
from pytest_membudget.report.page import Page
from pytest_membudget.report.text import Column, Table, make_table, number
from pytest_membudget.runtime.prediction.predictors import BYTES, Predictor
from pytest_membudget.units import (
    format_as_written,
    format_count,
    format_duration,
    format_number,
    format_share,
    format_size,
    parse_share,
)


def _add_calibrate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "function",
        metavar="MODULE:FUNCTION",
        help="the function to measure; it is called with the path of its input",
    )
    parser.add_argument(
        "files",
        nargs="*",
        default=[],
        type=Path,
        metavar="FILE",
        help="your own files or folders, instead of synthetic files",
    )
    parser.add_argument(
        "--kind", default="csv", choices=KINDS, help="kind of the synthetic files (default: %(default)s)"
    )
    parser.add_argument(
        "--sizes",
        default="1MB..8MB",
        metavar="SIZES",
        help="sizes of the inputs: a list, or a range that doubles (default: %(default)s)",
    )
    parser.add_argument(
        "--repeats", type=int, default=3, metavar="N", help="runs of each size (default: %(default)s)"
    )
    parser.add_argument(
        "--content",
        default="95%",
        metavar="PERCENT",
        help="percentage of tasks that the bound covers (default: %(default)s)",
    )
    parser.add_argument(
        "--confidence",
        default="95%",
        metavar="PERCENT",
        help="confidence that it covers them (default: %(default)s)",
    )
    parser.add_argument(
        "--budget-seconds",
        type=float,
        metavar="S",
        help="stop after S seconds; a run that is under way is ended",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="seed of the order of runs and of the files' contents",
    )
    parser.add_argument(
        "--save",
        metavar="NAME",
        help="save it as .membudget/calibrations/NAME.json; run again after an interruption, it continues where it stopped",
    )
    parser.add_argument(
        "--dask",
        metavar="ADDRESS",
        help="run on the hosts of this Dask cluster: the address of its scheduler, or its scheduler file",
    )
    add_predictor_option(parser)
    parser.add_argument(
        "--in-flight",
        action="store_true",
        help="measure peak and throughput by max_in_flight instead, and recommend a value",
    )
    parser.add_argument(
        "--values",
        default="1,2,4,8",
        metavar="N,N",
        help="values of max_in_flight to try (default: %(default)s)",
    )
    parser.add_argument(
        "--target",
        default="70%",
        metavar="PERCENT",
        help="percentage of the memory limit that the peak may reach (default: %(default)s)",
    )
    parser.add_argument(
        "--workers", type=int, metavar="N", help="number of worker processes (default: as many as fit)"
    )


def run_calibrate(arguments: argparse.Namespace) -> int:
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
        say("calibrate", str(error))
        return EXIT_USAGE if error.not_importable else EXIT_FAILED
    print_calibration(found)
    print_use(found, reference, path)
    if arguments.save:
        print(f"saved to {save_named(found, arguments.save)}")
    return EXIT_OK


def _run_in_flight(arguments: argparse.Namespace) -> int:
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


_LARGER = (1.25, 4.0)
"""Sizes shown beyond the calibrated ones, as multiples of the largest."""


def print_calibration(found: Calibration) -> None:
    """The fit, each size with what it took, and how good the fit is."""
    print(
        f"{found.file.function} on {found.file.kind}, {format_count(len(found.points), 'run')} in fresh processes"
    )
    by_size = found.predictors == ("bytes",)
    grows = (
        f"γ = {found.gamma:.2f} B/B"
        if by_size
        else f"follows {' and '.join(found.predictors) or 'no predictor'}"
    )
    print(
        f"{grows}{' (curved)' if found.curved else ''}, "
        f"overhead {format_size(found.overhead_bytes)}, idle worker {format_size(found.base_bytes)}"
        + (f", {format_duration(found.seconds_per_mb)} per MB" if by_size and found.seconds_per_mb else "")
    )
    print_page(Page("", "", tables=(_points_table(found),)))
    if found.file.environment.hosts:
        print(f"measured on {', '.join(found.file.environment.hosts)}")
    print(
        f"bound: covers {format_share(found.content)} of tasks with {format_share(found.confidence)} confidence, "
        "if they are like these"
    )
    print(
        f"without a law, {format_count(len(found.points), 'run')} show that for {format_share(found.proven_content)} of tasks; "
        f"for {found.content:.0%} it takes {found.runs_to_prove}"
    )
    if found.quality:
        print(_quality_line(found.quality, "size" if by_size else "input"))
    for caveat in found.caveats:
        print(f"note: {caveat}")


class _ShownInput(NamedTuple):
    """A calibrated input, or a larger one: by what the law goes, that as text, and the peaks that were measured of it."""

    features: int | dict[str, float]
    texts: tuple[str, ...]
    peaks_bytes: tuple[int, ...]


def _points_table(found: Calibration) -> Table:
    """What each input took, with the estimate, the bound, and whether that is extrapolated."""
    names = ("size",) if found.predictors == ("bytes",) else found.file.predictors
    columns: list[Column[_ShownInput]] = [
        *(number(name, _text_at(place)) for place, name in enumerate(names)),
        number("measured", lambda shown: _range(shown.peaks_bytes)),
        number("expected", lambda shown: format_size(found.expect(shown.features))),
        number("bound", lambda shown: format_size(found.bound(shown.features))),
        Column("", lambda shown: "extrapolated" if found.is_extrapolated(shown.features) else ""),
    ]
    inputs = _sizes(found) if found.predictors == ("bytes",) else _predicted_inputs(found)
    return make_table("points", "", columns, inputs)


def _text_at(place: int) -> Callable[[_ShownInput], str]:
    return lambda shown: shown.texts[place]


def _range(peaks_bytes: Sequence[int]) -> str:
    ends = (min(peaks_bytes), max(peaks_bytes)) if peaks_bytes else ()
    return " to ".join(dict.fromkeys(map(format_size, ends)))


def _sizes(found: Calibration) -> Iterator[_ShownInput]:
    sizes = sorted({point.size_bytes for point in found.points})
    for size in (*sizes, *(round(found.max_size_bytes * multiple) for multiple in _LARGER)):
        peaks = tuple(point.peak_bytes for point in found.points if point.size_bytes == size)
        yield _ShownInput(size, (format_as_written(size),), peaks)


def _predicted_inputs(found: Calibration) -> Iterator[_ShownInput]:
    peaks: dict[tuple[float, ...], list[int]] = defaultdict(list)
    for point, values in zip(found.points, found.file.values, strict=True):
        peaks[values].append(point.peak_bytes)
    for values, measured in sorted(peaks.items()):
        texts = tuple(map(format_number, values))
        yield _ShownInput(dict(zip(found.file.predictors, values, strict=True)), texts, tuple(measured))


def _quality_line(quality: CalibrationQuality, what: str) -> str:
    beyond = (
        f", {quality.under_extrapolated} of them beyond what the others cover"
        if quality.under_extrapolated
        else ""
    )
    return (
        f"each {what} from the others: error {format_share(quality.error)}, {quality.under_predicted} of "
        f"{quality.judged} above the bound of those alone{beyond} (true rate {format_share(quality.under_low)} to "
        f"{format_share(quality.under_high)}), over-allocation {format_share(quality.over_allocation)}"
    )


def print_use(found: Calibration, reference: FunctionReference, kept: Path | None) -> None:
    """What one worker holds with the largest calibrated input, and the estimator in the user's own program."""
    largest, bound_bytes = _largest_input(found)
    print(
        f"a worker with {largest} takes at most {format_size(found.base_bytes + bound_bytes)} above a bare interpreter; "
        "in your program:"
    )
    if kept is None and (found.file.predictors or found.curved):
        print(
            f"    # with --save NAME: an estimator that {'uses these predictors' if found.file.predictors else 'follows the curve'}"
        )
        return
    if found.file.predictors:
        _print_imports(reference, "FallbackExecutor, load_calibration")
        functions = {name: found.file.predictor_functions.get(name, "") for name in found.predictors}
        for origin in functions.values():
            if origin:
                print(f"    from {origin.partition(':')[0]} import {origin.partition(':')[2]}")
        named = ", ".join(
            f'"{name}": {origin.partition(":")[2]}' for name, origin in functions.items() if origin
        )
        given = f", predictors={{{named}}}" if named else ""
        estimator = f'load_calibration("{kept}"{given}).estimator("safe")'
    elif kept is None:
        _print_imports(reference, "FallbackExecutor, MemoryEstimator")
        estimator = (
            f"MemoryEstimator(gamma={found.gamma:.3g}, overhead={found.overhead_bytes}, base={found.base_bytes})"
            "  # with --save NAME: the bound, too"
        )
    else:
        _print_imports(reference, "FallbackExecutor, load_calibration")
        estimator = f'load_calibration("{kept}").estimator("safe")'
    print(f"    estimator = {estimator}")
    _print_run(reference, "estimator=estimator")


def _largest_input(found: Calibration) -> tuple[str, int]:
    """The calibrated input with the highest bound, in words, and that bound in bytes."""
    if found.predictors == ("bytes",):
        return f"one file of {format_as_written(found.max_size_bytes)}", found.bound(found.max_size_bytes)
    items = [dict(zip(found.file.predictors, values, strict=True)) for values in found.file.values]
    largest = max(items, key=found.bound)
    described = f"one input of {found.describe(largest)}" if found.predictors else "any input"
    return described, found.bound(largest)


def print_in_flight(table: InFlightTable, reference: FunctionReference, workers: int | None) -> None:
    """The table with the recommended value, and that value in the user's own program."""
    print_page(Page("", "", tables=(in_flight_table(table),)))
    print("in your program:")
    _print_imports(reference, "FallbackExecutor")
    processes = workers or max(row.max_in_flight for row in table.rows)
    _print_run(reference, f"max_workers={processes}, max_in_flight={table.recommended}")


def _print_imports(reference: FunctionReference, names: str) -> None:
    print(f"    from pytest_membudget import {names}")
    print(f"    from {reference.module} import {reference.name.partition('.')[0]}")


def _print_run(reference: FunctionReference, arguments: str) -> None:
    print(f"    with FallbackExecutor({arguments}) as executor:")
    print(f"        batch = executor.run({reference.name}, paths)")


def add_predictor_option(parser: argparse.ArgumentParser) -> None:
    """Declares ``--predictor``."""
    parser.add_argument(
        "--predictor",
        action="append",
        default=[],
        metavar="NAME=MODULE:FUNCTION",
        help="a function of the input that the memory may depend on; may be given three times; "
        f'"{BYTES}" is the size',
    )


def predictors_of(texts: Sequence[str]) -> dict[str, Predictor | None]:
    """The functions of ``NAME=MODULE:FUNCTION``, imported here; `None` for the size in bytes.

    Raises:
        UsageError: not of that form, a name that stands twice, or a function that cannot be imported.
    """
    found: dict[str, Predictor | None] = {}
    for text in texts:
        name, equals, reference = text.partition("=")
        if name in found:
            raise UsageError(f"--predictor {name} stands twice; give each a name of its own")
        if not equals and name != BYTES:
            raise UsageError(
                f'--predictor {text}: write NAME=MODULE:FUNCTION, such as "pages=readers:count_pages"'
            )
        found[name] = load_here(parse_reference(reference)) if equals else None
    return found


def find_calibration(name: str, predictors: Sequence[str] = ()) -> Calibration:
    """The calibration kept as `name`, or in the file of that path."""
    functions = {key: value for key, value in predictors_of(predictors).items() if value is not None}
    if os.sep in name or name.endswith(".json"):
        return load_calibration(name, functions)
    return named_calibration(name, predictors=functions)


def _add_synthesize_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", type=Path, metavar="PATH", help="file to write; an existing file is replaced")
    parser.add_argument("--size", required=True, metavar="SIZE", help='exact size, such as "20 MB" or 20MiB')
    parser.add_argument(
        "--kind", choices=KINDS, help="kind of the file (default: by the ending of PATH, else csv)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="the same seed gives the same bytes")


def run_synthesize(arguments: argparse.Namespace) -> int:
    """Writes the file and says what it holds."""
    made = synthesize(arguments.path, arguments.size, arguments.kind, arguments.seed)
    print(f"{made.path}: {made.size_bytes:,} B, {made.rows:,} rows of {made.kind}")
    return EXIT_OK


COMMANDS = {
    "calibrate": Command(_add_calibrate_arguments, run_calibrate),
    "synthesize": Command(_add_synthesize_arguments, run_synthesize),
}
