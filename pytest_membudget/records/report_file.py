"""Reports and baselines as files: one test a line, so that a change shows as one line."""

from __future__ import annotations

import os
from typing import Any

import msgspec

from pytest_membudget.errors import UnreadableFileError
from pytest_membudget.records.report import Report
from pytest_membudget.records.storage import decode_json, encodable, escape_controls, read_bounded

FORMAT = "membudget-report"
VERSION = 1


def read_report(path: str | os.PathLike[str], *, what: str = "a membudget report") -> Report:
    """The report or baseline at `path`; `what` names the expected file in messages.

    Raises:
        FileNotFoundError: there is none.
        UnreadableFileError: it is not a report, truncated, of a newer version, or holds impossible values.
    """
    data = read_bounded(path, what=what)
    parts = decode_json(data, dict[str, msgspec.Raw], name=str(path), what=what)
    header: dict[str, Any] = {
        key: decode_json(bytes(parts[key]), Any, name=f'the "{key}" of {path}', what="a number or text")
        for key in ("format", "version", "kind")
        if key in parts
    }
    if header.get("format") != FORMAT:
        raise UnreadableFileError(
            f'{path} is not {what}: its "format" is {_shown(header.get("format"))}, not "{FORMAT}"; is it the right file?'
        )
    version = header.get("version")
    if isinstance(version, int) and version > VERSION:
        raise UnreadableFileError(
            f"{path} is of version {_shown(version)} and this pytest-membudget reads version {VERSION}; "
            "upgrade pytest-membudget, or write the file again with this one"
        )
    for key in ("version", "kind", "tests"):
        if key not in parts:
            raise UnreadableFileError(f'{path} is not {what}: it has no "{key}"')
    report = decode_json(data, Report, name=str(path), what=what)
    twin = _first_twin([test.nodeid for test in report.tests])
    if twin is not None:
        raise UnreadableFileError(f"{path} is not {what}: it has the test {_shown(twin)} twice")
    return report


def encode_report(report: Report, *, omit_defaults: bool = False) -> bytes:
    """`report` as JSON with one line for each test; `omit_defaults` leaves out what was not taken."""
    fields = _sparse(report) if omit_defaults else _fields_of(report)
    lines = [f"  {_text(key)}: {_value(value)}" for key, value in fields.items()]
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def _fields_of(record: msgspec.Struct) -> dict[str, Any]:
    return {field.name: getattr(record, field.name) for field in msgspec.structs.fields(record)}


def _sparse(report: Report) -> dict[str, Any]:
    always = {"format": report.format, "version": report.version, "kind": report.kind}
    told = {key: value for key, value in _differing(report).items() if key != "tests"}
    return always | told | {"tests": [_differing(test) for test in report.tests]}


def _differing(record: msgspec.Struct) -> dict[str, Any]:
    """The fields of `record` that differ from their defaults."""
    found: dict[str, Any] = {}
    for field in msgspec.structs.fields(record):
        value = getattr(record, field.name)
        default = field.default_factory() if callable(field.default_factory) else field.default
        if value != default:
            found[field.name] = (
                _differing(value) if isinstance(value, msgspec.Struct) else msgspec.to_builtins(value)
            )
    return found


def _value(value: Any) -> str:
    if isinstance(value, msgspec.Struct):
        value = _fields_of(value)
    if isinstance(value, dict) and value:
        inner = [f"    {_text(key)}: {_text(item)}" for key, item in value.items()]
        return "{\n" + ",\n".join(inner) + "\n  }"
    if isinstance(value, (list, tuple)) and value:
        return "[\n" + ",\n".join("    " + _text(item) for item in value) + "\n  ]"
    return _text(value)


def _text(value: Any) -> str:
    try:
        data = msgspec.json.encode(value)
    except UnicodeEncodeError:
        data = msgspec.json.encode(encodable(msgspec.to_builtins(value)))
    return escape_controls(data).decode()


def _first_twin(names: list[str]) -> str | None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def _shown(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= 80 else text[:77] + "..."
