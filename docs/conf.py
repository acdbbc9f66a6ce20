"""Sphinx's settings: the documents as they are, an API reference from the docstrings, options and markers from the code.

The documents stay plain Markdown that also reads well in the repository. What only the site needs is added when a document
is read: the table of contents to `index.md`, the reference to `api.md`, options and markers to `reference.md`.
"""

from __future__ import annotations

import inspect
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest_membudget
from pytest_membudget.plugin.options import MARKER_DESCRIPTIONS, OPTIONS

ROOT = Path(__file__).resolve().parents[1]
URLS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]

project = "pytest-membudget"
author = copyright = "The pytest-membudget authors"
release = version = pytest_membudget.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["images/*.md"]
html_theme = "furo"
html_title = f"pytest-membudget {release}"
html_theme_options = {
    "source_repository": URLS["Repository"],
    "source_branch": "main",
    "source_directory": "docs/",
}
myst_heading_anchors = 4
myst_enable_extensions = ["deflist"]
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autoclass_content = "both"
# Docstrings quote names and code as `text`, which is no reference.
default_role = "code"

_OUTSIDE = re.compile(r"\]\(\.\./(?!\.\./)([^)\s]+)\)")
_LINKED = re.compile(r"\]\(([\w-]+)\.md[^)]*\)")


def setup(app: Any) -> None:
    """Has each document completed as it is read."""
    app.connect("source-read", complete)


def complete(app: Any, name: str, source: list[str]) -> None:
    """Links that leave `docs/` lead to the repository; three documents get what is made from the code."""
    additions = {"index": contents, "api": api, "reference": reference}
    text = _OUTSIDE.sub(rf"]({URLS['Repository']}/blob/main/\1)", source[0])
    if name in additions:
        text += "\n" + "\n".join(additions[name](text))
    source[0] = text


def contents(index: str) -> Iterator[str]:
    """A table of contents in the order in which the index names the documents."""
    yield from ("```{toctree}", ":hidden:", "", *dict.fromkeys(_LINKED.findall(index)), "```")


def api(_: str) -> Iterator[str]:
    """Every public name with its signature and docstring."""
    for name in vars(pytest_membudget)["__all__"]:
        value = getattr(pytest_membudget, name)
        if inspect.isclass(value):
            fields = [] if issubclass(value, BaseException) else [":members:"]
            yield from (f"## {name}", "", "```{eval-rst}", f".. autoclass:: pytest_membudget.{name}")
            yield from (*(f"   {field}" for field in fields), "```", "")
        elif callable(value):
            yield from (
                f"## {name}",
                "",
                "```{eval-rst}",
                f".. autofunction:: pytest_membudget.{name}",
                "```",
                "",
            )


def reference(_: str) -> Iterator[str]:
    """Options and markers as the code declares them."""
    yield from ("## Options", "", "| option | ini option | meaning |", "|---|---|---|")
    for option in OPTIONS:
        value = f"={option.metavar}" if option.metavar else ""
        ini = f"`{option.ini}`" if option.in_ini else "command line only"
        yield f"| `{option.flag}{value}` | {ini} | {option.help.replace('%%', '%').replace('|', chr(92) + '|')} |"
    yield from ("", "## Markers", "")
    for description in MARKER_DESCRIPTIONS:
        spelling, _, meaning = description.partition("): ")
        yield from (f"`@pytest.mark.{spelling})`", f": {meaning}", "")
