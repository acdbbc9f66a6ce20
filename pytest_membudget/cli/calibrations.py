"""Calibrations on the command line: by name or by file, with the functions of their predictors."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import Any

from pytest_membudget.calibration.function_reference import parse_reference
from pytest_membudget.calibration.in_flight import load_here
from pytest_membudget.calibration.model import Calibration
from pytest_membudget.calibration.store import load_calibration, named_calibration
from pytest_membudget.errors import UsageError
from pytest_membudget.runtime.prediction.predictors import BYTES, Predictor
from pytest_membudget.units import format_as_written


def add_predictor_option(parser: argparse.ArgumentParser) -> None:
    """Declares ``--predictor``."""
    parser.add_argument(
        "--predictor",
        action="append",
        default=[],
        metavar="NAME=MODULE:FUNCTION",
        help="a function of the input that its memory may follow, up to three times; "
        f'"{BYTES}" alone is the size',
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


def shown_features(found: Calibration, item: Any) -> str:
    """What the law goes by of an item, in words: its size, or its predictors."""
    features = found.features(item)
    if isinstance(features, int):
        return format_as_written(features)
    return ", ".join(f"{name} {value:g}" for name, value in features.items()) or "any input"
