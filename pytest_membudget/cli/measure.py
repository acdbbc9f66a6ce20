"""`membudget measure -- COMMAND`: the peak of a command and all its processes; `membudget doctor`: what can be measured here.

The result of `measure` goes to standard error, since standard output belongs to the command; so does the JSON record of `--json`.
"""

from __future__ import annotations

import argparse
import statistics
import sys

from pytest_membudget.cli import EXIT_INTERRUPTED, EXIT_OK, EXIT_USAGE, Command, say
from pytest_membudget.errors import MembudgetError, UsageError
from pytest_membudget.measurement.fresh.command import measure_command
from pytest_membudget.records.measurement import CommandMeasurement
from pytest_membudget.records.storage import encode_json
from pytest_membudget.units import format_count, format_duration, format_size, parse_size

EXIT_OVER = 1
EXIT_OWN_FAILURE = 125


def _add_measure_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = (
        "membudget measure [--budget SIZE] [--runs N] [--timeout SECONDS] [--json] -- COMMAND [ARGUMENT …]"
    )
    parser.epilog = (
        "Exit codes: the command's own; 1 when it succeeded but was over its budget; 2 when there is no command or an option is "
        "wrong; 125 when membudget itself failed, 126 when the command may not be run, 127 when it was not found, 128 plus the "
        "signal's number when a signal ended it."
    )
    parser.add_argument(
        "--budget", type=_size, metavar="SIZE", help="exit with 1 if the peak is larger, such as 1.5GB"
    )
    parser.add_argument(
        "--runs", type=_runs, default=1, metavar="N", help="run it N times and use the largest peak"
    )
    parser.add_argument("--timeout", type=float, metavar="SECONDS", help="end the command after this time")
    parser.add_argument(
        "--json", action="store_true", help="print the result as JSON, to standard error as well"
    )
    parser.add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND", help="the command, after --")


def run_measure(arguments: argparse.Namespace) -> int:
    """Runs the command, shows what it took, and passes its exit code on."""
    words = arguments.words[1:] if arguments.words[:1] == ["--"] else arguments.words
    measured: list[CommandMeasurement] = []
    try:
        for _ in range(arguments.runs):
            measured.append(measure_command(words, timeout_s=arguments.timeout))
            if measured[-1].exit_code:
                break
    except KeyboardInterrupt:
        say("measure", "interrupted")
        return EXIT_INTERRUPTED
    except UsageError as error:
        say("measure", str(error))
        return EXIT_USAGE
    except (MembudgetError, OSError) as error:
        say("measure", str(error))
        return EXIT_OWN_FAILURE
    last = measured[-1]
    ending = last.ending
    if ending is not None and ending.how in {"not-found", "not-runnable"}:
        say("measure", f"{words[0]!r} {ending}")
        return last.exit_code
    over = arguments.budget is not None and max(each.peak_bytes for each in measured) > arguments.budget
    if arguments.json:
        sys.stderr.write(encode_json(measured if arguments.runs > 1 else last).decode())
    else:
        _show(measured, arguments.budget)
    return EXIT_OVER if over and not last.exit_code else last.exit_code


def _show(measured: list[CommandMeasurement], budget_bytes: int | None) -> None:
    largest = max(measured, key=lambda each: each.peak_bytes)
    lines = [peak_line(largest), *(f"  note: {caveat}" for caveat in largest.caveats)]
    if len(measured) > 1:
        peaks = [each.peak_bytes for each in measured]
        spread = f"{format_size(min(peaks))} to {format_size(max(peaks))}"
        lines.append(f"  {len(peaks)} runs: {spread}, median {format_size(statistics.median(peaks))}")
    if largest.processes > 1:
        lines.extend(
            f"  {share.name} ({share.pid}): {format_size(share.peak_bytes)}" for share in largest.shares[:5]
        )
    if largest.ending is not None and largest.ending.ended_by_us:
        lines.append(f"  it {largest.ending}")
    if budget_bytes is not None:
        lines.append(_verdict(largest, budget_bytes))
    print("\n".join(lines), file=sys.stderr)


def peak_line(found: CommandMeasurement) -> str:
    """The peak with its doubt, and how the command ended."""
    exact = found.peak_upper_bytes == found.peak_bytes
    figure = (
        f"{format_size(found.peak_bytes)} (exact, by the kernel)"
        if exact
        else f"at least {format_size(found.peak_bytes)}, at most {format_size(found.peak_upper_bytes)}"
    )
    processes, duration = format_count(found.processes, "process"), format_duration(found.duration_s)
    return f"peak {figure}, {processes}, {duration}, exit code {found.exit_code}"


def _verdict(found: CommandMeasurement, budget_bytes: int) -> str:
    budget = format_size(budget_bytes)
    if found.peak_bytes > budget_bytes:
        return f"  over its budget of {budget} by {format_size(found.peak_bytes - budget_bytes)}"
    if found.peak_upper_bytes > budget_bytes:
        return f"  within its budget of {budget} as far as is proven; at most {format_size(found.peak_upper_bytes)}"
    return f"  within its budget of {budget}"


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _runs(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of runs; write 1 to 1000")
    return int(text)


def _add_doctor_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run_doctor(arguments: argparse.Namespace) -> int:
    """Shows every finding; always 0: what a machine cannot measure is no failure."""
    # What only measures a command need not import all that may be found.
    from pytest_membudget.measurement.doctor import doctor
    from pytest_membudget.measurement.tree.sampler import close_sampler

    try:
        found = doctor()
    finally:
        close_sampler()
    if arguments.json:
        sys.stdout.write(encode_json(found).decode())
        return EXIT_OK
    width = max(len(finding.subject) for finding in found.findings)
    for finding in found.findings:
        print(f"{finding.quality:8}  {finding.subject:{width}}  {finding.found}")
        print(f"{'':8}  {'':{width}}  {finding.why}")
    place = found.environment
    print(
        f"\n{place.system} {place.kernel}, {place.python}, {place.libc}, {place.allocator}, {format_count(place.cores, 'core')}"
    )
    return EXIT_OK


COMMANDS = {
    "measure": Command(_add_measure_arguments, run_measure),
    "doctor": Command(_add_doctor_arguments, run_doctor),
}
