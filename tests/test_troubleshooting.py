"""What docs/troubleshooting.md quotes is what the package says: fragments of messages are looked up in its source."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
OTHERS = (
    "unrecognized arguments",
    "Unknown pytest.mark",
    "ScopeMismatch",
    "config option",
    "An attempt has been made",
)
"""What pytest and Python say by themselves."""


def messages():
    """First cells of the tables, each quoted message by itself."""
    for line in PAGE.splitlines():
        if line.startswith("| `"):
            first = line.removeprefix("| ").split(" | ")[0]
            yield from re.findall(r"`([^`]+)`", first)


def spoken():
    """Every text in the package's source; a place that is filled in splits it."""
    for file in (ROOT / "pytest_membudget").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
            elif isinstance(node, ast.JoinedStr):
                yield "".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values)


SPOKEN = "\n".join(spoken())


@pytest.mark.parametrize("message", [each for each in messages() if not each.startswith(OTHERS)])
def test_a_quoted_message_is_one_of_ours(message):
    fragments = [part.strip(" ,;:.()") for part in message.split("…")]
    for fragment in filter(lambda part: len(part) > 3, fragments):
        assert fragment in SPOKEN, fragment


def test_many_messages_are_quoted():
    assert len(list(messages())) > 60
