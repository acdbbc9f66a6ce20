"""A table of finished text, which every format lays out in its own way."""

from __future__ import annotations

from typing import NamedTuple

Row = tuple[str, ...]


class Column(NamedTuple):
    """A column's title, whether it holds numbers (aligned right), and whether it holds names from outside."""

    title: str
    numeric: bool = False
    name: bool = False


class Table(NamedTuple):
    """Rows of text under their columns, with notes below. `key` is stable, for anchors and tests."""

    key: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()


def number(title: str) -> Column:
    """A column of numbers."""
    return Column(title, numeric=True)


def name(title: str) -> Column:
    """A column of names from outside: test ids, functions, files."""
    return Column(title, name=True)
