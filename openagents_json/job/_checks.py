"""Checks of single arguments; each returns the value in the form the engine uses, or names the field and the remedy."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import uuid_utils

from openagents_json.errors import InvalidJobError
from openagents_json.job._shown import shown

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}")
_MANY = 1_000_000

#: The longest duration accepted anywhere: 366 days, in seconds.
LONGEST = 366 * 24 * 3600.0


def new_id() -> str:
    """Make an id: a UUIDv7 (RFC 9562), so that ids sort by the time they were made."""
    return str(uuid_utils.uuid7())


def check_id(value: object, field: str = "job_id") -> str:
    """Check that a value can be the id of a job (or the name of a queue).

    Raises:
        InvalidJobError: it cannot.
    """
    if not isinstance(value, str) or _ID.fullmatch(value) is None:
        problem = "must be a letter or digit, then up to 63 letters, digits, '.', '_', ':' or '-'"
        raise InvalidJobError(field, f"{problem}; not {shown(value)}")
    return value


def check_number(value: object, field: str, *, low: float = 0, high: float = LONGEST, above: bool = False) -> float:
    """Check that a value is a finite number within bounds.

    Args:
        value: what was given.
        field: its name, for the error.
        low: the smallest allowed, or with `above` the largest that is too small.
        high: the largest allowed.
        above: exclude `low` itself.

    Raises:
        InvalidJobError: it is not.
    """
    # a huge int is compared as it is: it would not fit into a float
    if isinstance(value, int | float) and _is_within(value, low, high, above=above):
        return float(value)
    bounds = f"{'>' if above else '>='} {low:g} and <= {high:g}"
    raise InvalidJobError(field, f"must be a number {bounds}, not {shown(value)}")


def _is_within(value: float, low: float, high: float, *, above: bool) -> bool:
    return not isinstance(value, bool) and low <= value <= high and not (above and value == low)


def check_count(value: object, field: str, *, low: int = 0) -> int:
    """Check that a value is a whole number from `low` to a million.

    Raises:
        InvalidJobError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= _MANY:
        raise InvalidJobError(field, f"must be a whole number from {low} to {_MANY:,}, not {shown(value)}")
    return value


def check_flag(value: object, field: str) -> bool:
    """Check that a value is True or False.

    Raises:
        InvalidJobError: it is not.
    """
    if not isinstance(value, bool):
        raise InvalidJobError(field, f"must be True or False, not {shown(value)}")
    return value


def check_choice(value: object, field: str, allowed: Iterable[str]) -> str:
    """Check that a value is one of several texts.

    Raises:
        InvalidJobError: it is not.
    """
    choices = tuple(allowed)
    if not isinstance(value, str) or value not in choices:
        raise InvalidJobError(field, f"must be one of {', '.join(map(repr, choices))}, not {shown(value)}")
    return value


def check_list(value: object, field: str, of: str) -> Sequence[Any]:
    """Check that a value is a list or tuple (a text is not a list of letters).

    Raises:
        InvalidJobError: it is not.
    """
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Sequence):
        raise InvalidJobError(field, f"must be a list of {of}, not {shown(value)}")
    return value


def check_time(value: object, field: str) -> datetime:
    """Check that a value is a datetime, or ISO text of one, between the years 2 and 9998.

    Raises:
        InvalidJobError: it is not.
    """
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise InvalidJobError(field, f"{shown(value)} is not an ISO 8601 time") from None
    if not isinstance(value, datetime):
        raise InvalidJobError(field, f"must be a datetime or ISO text, not {shown(value)}")
    if not 1 < value.year < 9999:  # a year at either end is left for conversions between time zones
        raise InvalidJobError(field, f"{value} is out of range")
    return value


def refuse_unknown(given: Iterable[object], known: Collection[str], what: str) -> None:
    """Refuse options that do not exist.

    Raises:
        TypeError: there is one; it names the option that was probably meant.
    """
    for name in given:
        if name not in known:
            close = difflib.get_close_matches(str(name), known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"it takes {', '.join(sorted(known))}"
            msg = f"{what} has no option {name!r}; {hint}"
            raise TypeError(msg)
