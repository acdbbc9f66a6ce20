"""Plain data as JSON and back as it was: what JSON alone would turn into something else carries its kind.

Numbers, text, `None` and lists stand for themselves. A tuple, a mapping, bytes, a path and the odd floats are objects with
one key that names what they are, so `(1, 2)` is `{"tuple": [1, 2]}`. Reading makes nothing but these: no class is looked
up and no code is run.
"""

from __future__ import annotations

import base64
import enum
import math
import numbers
import os
from collections.abc import Callable, Mapping
from pathlib import Path, PurePath
from typing import Any

_DEEPEST = 100


class NotPlainDataError(Exception):
    """A value that is more than data: it cannot come back from a file."""


def encode(value: Any) -> Any:
    """`value` as JSON can carry it. A subclass of text or bytes, such as numpy's, is its text or bytes.

    Raises:
        NotPlainDataError: it is an object of another kind, holds one, or its own methods raise.
    """
    try:
        return _encoded(value, 0)
    except NotPlainDataError:
        raise
    except (Exception, SystemExit) as error:  # the value's own methods may raise anything
        raise NotPlainDataError(
            f"a {type(value).__qualname__} that raises {type(error).__qualname__}"
        ) from None


def decode(value: Any) -> Any:
    """What `encode` was given.

    Raises:
        ValueError: no `encode` wrote that.
    """
    if isinstance(value, list):
        return [decode(each) for each in value]
    if not isinstance(value, dict):
        return value
    if len(value) != 1:
        raise ValueError(f"an object with {len(value)} keys, where one names its kind")
    ((kind, content),) = value.items()
    if kind not in _DECODERS:
        raise ValueError(f"an object of the unknown kind {kind!r}")
    try:
        return _DECODERS[kind](content)
    except (TypeError, AttributeError) as error:
        raise ValueError(f"an object of the kind {kind!r} that holds something else: {error}") from None


def _encoded(value: Any, depth: int) -> Any:
    if depth > _DEEPEST:
        raise NotPlainDataError(f"data more than {_DEEPEST} levels deep")
    if type(value) is list:
        return [_encoded(each, depth + 1) for each in value]
    if type(value) is tuple:
        return {"tuple": [_encoded(each, depth + 1) for each in value]}
    if type(value) is dict:
        return {"dict": [[_encoded(each, depth + 1) for each in pair] for pair in value.items()]}
    return _scalar(value)


def _scalar(value: Any) -> Any:
    match value:
        case None | bool():
            return value
        case enum.Enum():
            raise NotPlainDataError(f"a member of {type(value).__qualname__}")
        case str():
            return _text(str.__str__(value))
        case bytes():
            return {"bytes": _base64(memoryview(value).tobytes())}
        case PurePath():
            return {"path": _text(os.fspath(value))}
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"float": repr(float(value))}
    raise NotPlainDataError(f"a {type(value).__qualname__}")


def _text(text: str) -> Any:
    try:
        text.encode()
    except UnicodeEncodeError:  # a file name that is no Unicode
        return {"file name": _base64(os.fsencode(text))}
    return text


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _unbase64(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _path(content: Any) -> Path:
    return Path(decode(content))


def _float(text: str) -> float:
    if text not in {"nan", "inf", "-inf"}:
        raise ValueError(f"the float {text!r}")
    return float(text)


def _dict(pairs: Any) -> dict[Any, Any]:
    return {decode(key): decode(value) for key, value in pairs}


_DECODERS: Mapping[str, Callable[[Any], Any]] = {
    "bytes": _unbase64,
    "dict": _dict,
    "file name": lambda text: os.fsdecode(_unbase64(text)),
    "float": _float,
    "path": _path,
    "tuple": lambda items: tuple(decode(each) for each in items),
}
