"""Values to JSON and back, with errors that name the place; text that every store can keep.

What JSON, PostgreSQL or a file name cannot hold (NaN, NUL characters, lone surrogates, nesting without end) is
refused here, so it is refused alike by every store.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any

import pydantic_core

from openagents_json.errors import InvalidJobError

#: The JSON reader gives up at 200 levels, and stores put values into documents of their own.
_READABLE_DEPTH = 200
_MAX_DEPTH = 150
_AROUND = _READABLE_DEPTH - _MAX_DEPTH
#: Nor does it read longer integers than Python does by default.
_MAX_DIGITS = 4300
_LONG_NUMBER = re.compile(rb"[0-9]{%d}" % (_MAX_DIGITS + 1))


def encode(value: object, field: str, *, limit: int) -> bytes:
    """Encode a value as JSON.

    Anything pydantic can serialise is accepted: JSON's own types, models, dataclasses, enums, dates, UUIDs, sets,
    and so on; it is read back as JSON's own types. Keys of objects become strings.

    Args:
        value: what to encode.
        field: what it is, for the error.
        limit: the most bytes it may take.

    Raises:
        InvalidJobError: it has no JSON form or is too long; `field` names the path inside the value.
    """
    if value is None:
        return b"null"
    try:
        data = pydantic_core.to_json(value, inf_nan_mode="constants")
        if b"NaN" in data or b"Infinity" in data or b"\\u0000" in data:
            # As it will be read: the value itself may hide them (bytes, a deque), or be used up (a generator).
            _refuse_unstorable(pydantic_core.from_json(data), field, ())
        if data.count(b"[") + data.count(b"{") >= _MAX_DEPTH or _has_long_number(data):
            pydantic_core.from_json(b"[" * _AROUND + data + b"]" * _AROUND)
    except InvalidJobError:
        raise
    except Exception as exc:  # noqa: BLE001 - the user's own classes take part, and may raise anything
        _refuse_unstorable(value, field, ())
        raise InvalidJobError(field, f"has no JSON form: {exc}") from None
    if len(data) > limit:
        problem = (
            f"takes {len(data):,} bytes as JSON, and the limit is {limit:,}; store it elsewhere and pass a reference"
        )
        raise InvalidJobError(field, problem)
    return data


def decode(data: bytes) -> Any:
    """Decode what `encode` made; each call gives a fresh value."""
    return pydantic_core.from_json(data)


def check_text(value: object, field: str, *, longest: int, shortest: int = 0) -> str:
    """Check that a value is text every store can keep, of a length within bounds (in characters).

    Raises:
        InvalidJobError: it is not.
    """
    if not isinstance(value, str):
        raise InvalidJobError(field, f"must be a str, not {type(value).__name__}")
    if not shortest <= len(value) <= longest:
        raise InvalidJobError(field, f"must have {shortest} to {longest:,} characters, not {len(value):,}")
    problem = _text_problem(value)
    if problem:
        raise InvalidJobError(field, problem)
    return value


def storable_text(value: str, *, longest: int) -> str:
    """Make text storable that is not ours to refuse (an exception's message): escape, and cut out the middle."""
    if _text_problem(value):
        value = value.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
    if len(value) > longest:
        half = (longest - 20) // 2
        value = f"{value[:half]}\n... shortened ...\n{value[-half:]}"
    return value


def _text_problem(value: str) -> str:
    if "\0" in value:
        return f"contains a NUL character at position {value.index(chr(0))}; databases cannot store it, remove it"
    try:
        value.encode()
    except UnicodeEncodeError as exc:
        return f"contains a lone surrogate at position {exc.start}, which is not valid Unicode; encode it differently"
    return ""


def _has_long_number(data: bytes) -> bool:
    # So long a run of digits covers one of every `_MAX_DIGITS` bytes: most data need not be searched.
    return any(48 <= byte <= 57 for byte in data[::_MAX_DIGITS]) and _LONG_NUMBER.search(data) is not None


def _refuse_unstorable(value: object, path: str, above: tuple[int, ...]) -> None:
    """Walk a value that could not be encoded, and refuse the first place that is to blame."""
    if id(value) in above:
        raise InvalidJobError(path, "contains itself; JSON has no references")
    if isinstance(value, str):
        problem = _text_problem(value)
        if problem:
            raise InvalidJobError(path, problem)
    elif isinstance(value, int):
        if abs(value) >= 10**_MAX_DIGITS:
            raise InvalidJobError(path, f"has more than {_MAX_DIGITS} digits; pass it as a string")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidJobError(path, f"is {value!r}, which JSON cannot express; use None or a string")
    else:
        try:
            parts = _parts(value)
        except Exception:  # noqa: BLE001 - the value's own class, which may be what is to blame
            parts = []
        if parts and len(above) >= _MAX_DEPTH:
            raise InvalidJobError(path, f"is nested more than {_MAX_DEPTH} levels deep; flatten it")
        for step, part in parts:
            _refuse_unstorable(part, f"{path}{step}", (*above, id(value)))
        _refuse_itself(value, path)


def _parts(value: object) -> list[tuple[str, object]]:
    """List what a value is made of, each part with its step in the path."""
    if isinstance(value, Mapping):
        keys = [("<key>", key) for key in value if isinstance(key, str)]
        return [*keys, *((f".{key}" if isinstance(key, str) else f"[{key!r}]", part) for key, part in value.items())]
    if isinstance(value, list | tuple | AbstractSet):
        return [(f"[{index}]", part) for index, part in enumerate(value)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [(f".{field.name}", getattr(value, field.name)) for field in dataclasses.fields(value)]
    if hasattr(type(value), "model_fields"):
        return [(f".{name}", part) for name, part in vars(value).items()]
    return []


def _refuse_itself(value: object, path: str) -> None:
    """Refuse a value whose parts are all well, or that has none, if it has no JSON form."""
    try:
        pydantic_core.to_json(value)
    except Exception as exc:  # noqa: BLE001 - as above
        kind = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
        reason = "" if "unknown type" in str(exc) else f" ({exc})"
        problem = f"a value of type {kind} has no JSON form{reason}; convert it to plain data first"
        raise InvalidJobError(path, problem) from None
