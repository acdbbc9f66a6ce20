"""The text of a failed judgement: both numbers first, then what was measured, how, who held it, what to do."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_membudget.gate.figures import Figure, suggested_budget
from pytest_membudget.records.measurement import Measurement, ProcessShare
from pytest_membudget.units import format_count, format_duration, format_size

_MOST_PROCESSES = 4


def explain(measurement: Measurement, figures: Sequence[Figure], headlines: Sequence[str]) -> str:
    """One headline a figure, then the explanation they share."""
    lines = [*headlines]
    for position, figure in enumerate(figures):
        lines.append(_line("measured" if position == 0 else "", f"{figure.meaning}: {_interval(figure)}"))
    lines.append(_line("how", obtained(measurement)))
    lines.append(_line("", _course(measurement)))
    lines += [
        _line("largest" if position == 0 else "", _holder(share))
        for position, share in enumerate(_largest(measurement.shares))
    ]
    lines += [_line("note", caveat) for caveat in measurement.caveats]
    lines += [_line("next" if position == 0 else "", step) for position, step in enumerate(_steps(figures))]
    return "\n".join(lines)


def obtained(measurement: Measurement) -> str:
    """How the figure came about, in words."""
    if measurement.source == "kernel":
        return "the kernel's own high-water mark" + ("" if measurement.exact else ", as an interval")
    pace = f" every {measurement.interval_s * 1000:.3g} ms" if measurement.interval_s else ""
    return f"process tree sampled{pace}; the upper bound covers what may have passed between samples"


def _interval(figure: Figure) -> str:
    if figure.upper_bytes == figure.proven_bytes:
        return format_size(figure.proven_bytes)
    return f"at least {format_size(figure.proven_bytes)}, at most {format_size(figure.upper_bytes)}"


def _course(measurement: Measurement) -> str:
    return (
        f"{format_count(measurement.processes, 'process')} in {format_duration(measurement.duration_s)}; start {format_size(measurement.start_bytes)}, "
        f"total peak {format_size(measurement.total_peak_bytes)}, end {format_size(measurement.end_bytes)}"
    )


def _largest(shares: Sequence[ProcessShare]) -> list[ProcessShare]:
    return sorted(shares, key=lambda share: -share.peak_bytes)[:_MOST_PROCESSES]


def _holder(share: ProcessShare) -> str:
    return f"{share.name} (pid {share.pid}): {format_size(share.peak_bytes)}"


def _steps(figures: Sequence[Figure]) -> list[str]:
    markers = ", ".join(f'{figure.argument}"{suggested_budget(figure.upper_bytes)}"' for figure in figures)
    return [
        "see who allocated it: run this test with --membudget-memray",
        f"or, if it may use that much: @pytest.mark.memory_budget({markers})",
    ]


def _line(title: str, text: str) -> str:
    return f"  {title:<9} {text}"
