"""Figures side by side, printed by the benchmarks."""

import os


def print_table(title: str, rows: list[tuple[str, ...]]) -> None:
    """Columns as wide as they need be, under a title that tells the load."""
    print(f"\n{title} (load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores)")
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
