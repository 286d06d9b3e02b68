"""Values to JSON and back: what is accepted, and what is refused at which place."""

import json
import math
import uuid
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import Enum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from openagents_json.errors import InvalidJobError
from openagents_json.job import _codec

LIMIT = 1024 * 1024

storable_text = st.text(st.characters(codec="utf-8", exclude_characters="\0"))
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | storable_text,
    lambda inner: st.lists(inner) | st.dictionaries(storable_text, inner),
)


class Colour(Enum):
    RED = "red"


@dataclass
class Point:
    x: float
    label: str = ""


class Order(BaseModel):
    item: str
    price: float = 0.0


class Opaque:
    """Nothing that could be serialised."""


def nested(levels: int, innermost: object = 0) -> Any:
    value = innermost
    for _ in range(levels):
        value = [value]
    return value


def cyclic() -> list[object]:
    value: list[object] = [1]
    value.append(value)
    return value


def encode(value: object, *, limit: int = LIMIT) -> bytes:
    return _codec.encode(value, "payload", limit=limit)


@given(json_values)
def test_json_values_are_read_back_as_they_were(value: Any) -> None:
    data = encode(value)
    assert _codec.decode(data) == value
    assert json.loads(data) == value


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (Order(item="tea", price=1.5), {"item": "tea", "price": 1.5}),
        (Point(1.5, "here"), {"x": 1.5, "label": "here"}),
        ((1, (2, 3)), [1, [2, 3]]),
        ({"only"}, ["only"]),
        (deque([1, 2]), [1, 2]),
        ((number for number in (1, 2)), [1, 2]),
        (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
        (Colour.RED, "red"),
        (date(2026, 1, 2), "2026-01-02"),
        (datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC), "2026-01-02T03:04:05.000006Z"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (b"text", "text"),
        ({7: "a", 2.5: "b", True: "c"}, {"7": "a", "2.5": "b", "true": "c"}),
        (Order(item="tea", price=math.nan), {"item": "tea", "price": None}),
        ({"model": [Order(item="tea")]}, {"model": [{"item": "tea", "price": 0.0}]}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_pydantic_can_serialise_is_accepted(value: object, read: object) -> None:
    assert _codec.decode(encode(value)) == read


@pytest.mark.parametrize("text", ["NaN", "-Infinity", "\\u0000", '\\"\\u0000', "x" * 5000, "7" * 5000])
def test_text_that_only_looks_unstorable_is_accepted(text: str) -> None:
    for value in (text, [text], {text: 1}, nested(150, text), [nested(100), text]):
        assert _codec.decode(encode(value)) == value


def test_two_decodings_share_nothing() -> None:
    data = encode({"a": []})
    first, second = _codec.decode(data), _codec.decode(data)
    first["a"].append(1)
    assert second == {"a": []}


REFUSED: dict[str, tuple[Callable[[], object], str, str]] = {
    "nan": (lambda: math.nan, "payload", "nan"),
    "infinity": (lambda: {"a": [1, -math.inf]}, "payload.a[1]", "-inf"),
    "nan-in-a-dataclass": (lambda: [Point(math.nan)], "payload[0].x", "nan"),
    "nul-in-a-model": (lambda: {"order": Order(item="\0")}, "payload.order.item", "NUL"),
    "nan-in-a-deque": (lambda: deque([math.nan]), "payload[0]", "nan"),
    "nan-in-a-generator": (lambda: (number for number in (1.0, math.nan)), "payload[1]", "nan"),
    "nul": (lambda: {"a": {"b": "x\0y"}}, "payload.a.b", "NUL character at position 1"),
    "nul-in-bytes": (lambda: [b"\0"], "payload[0]", "NUL"),
    "nul-in-a-key": (lambda: {"a\0": 1}, "payload<key>", "NUL"),
    "surrogate": (lambda: ["fine", "bad\ud800"], "payload[1]", "lone surrogate at position 3"),
    "surrogate-in-a-key": (lambda: {"\udfff": 1}, "payload<key>", "surrogate"),
    "surrogate-in-a-tuple": (lambda: {"a": ("\udfff",)}, "payload.a[0]", "surrogate"),
    "unknown-type": (lambda: {"a": [object()]}, "payload.a[0]", "a value of type object has no JSON form; convert"),
    "a-function": (lambda: {"f": encode}, "payload.f", "function"),
    "an-exception": (lambda: [ValueError("x")], "payload[0]", "ValueError"),
    "own-type": (lambda: {"a": [Opaque()]}, "payload.a[0]", "tests.unit.test_codec.Opaque has no JSON form; convert"),
    "bytes-not-utf-8": (lambda: {"b": b"\xff"}, "payload.b", "bytes has no JSON form (Error"),
    "under-a-key-that-is-no-text": (lambda: {7: object()}, "payload[7]", "object"),
    "cyclic": (cyclic, "payload[1]", "contains itself"),
    "deep": (lambda: {"a": nested(150)}, "payload.a" + "[0]" * 149, "more than 150 levels"),
    "deeper-than-pydantic-goes": (lambda: nested(5000), "payload" + "[0]" * 150, "more than 150 levels"),
    "long-number": (lambda: {"n": [10**4300]}, "payload.n[0]", "more than 4300 digits"),
    "long-negative-number": (lambda: [-(10**4300)], "payload[0]", "more than 4300 digits"),
    "long-number-late": (lambda: ["x" * 10_000, 10**9000], "payload[1]", "more than 4300 digits"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_store_could_keep_is_refused_and_its_place_named(name: str) -> None:
    make, field, problem = REFUSED[name]
    with pytest.raises(InvalidJobError) as caught:
        encode(make())
    assert caught.value.field == field
    assert problem in caught.value.problem


def test_the_deepest_and_longest_that_can_be_read_back_is_accepted() -> None:
    assert _codec.decode(encode(nested(150))) == nested(150)
    assert _codec.decode(encode([10**4300 - 1])) == [10**4300 - 1]
    with pytest.raises(InvalidJobError):
        encode(nested(151))


@given(st.recursive(st.floats() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_whatever_is_accepted_is_plain_json_without_nul(value: Any) -> None:
    try:
        data = encode(value)
    except InvalidJobError:
        return

    def refuse(constant: str) -> None:
        pytest.fail(f"{constant} is not JSON")

    assert "\0" not in repr(json.loads(data, parse_constant=refuse)).replace("\\\\", "")
    data.decode()


def test_the_limit_counts_bytes_and_includes_itself() -> None:
    value = "ü" * 10
    assert len(encode(value, limit=22)) == 22
    with pytest.raises(InvalidJobError) as caught:
        encode(value, limit=21)
    assert caught.value.field == "payload"
    assert "22 bytes" in caught.value.problem
    assert "21" in caught.value.problem


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (7, "must be a str, not int"),
        (b"text", "must be a str, not bytes"),
        (None, "must be a str, not NoneType"),
        ("", "must have 1 to 5 characters, not 0"),
        ("toolong", "must have 1 to 5 characters, not 7"),
        ("a\0", "NUL character at position 1"),
        ("\ud800", "lone surrogate at position 0"),
    ],
)
def test_text_that_no_store_could_keep_is_refused(value: object, problem: str) -> None:
    with pytest.raises(InvalidJobError) as caught:
        _codec.check_text(value, "name", longest=5, shortest=1)
    assert caught.value.field == "name"
    assert problem in caught.value.problem


@pytest.mark.parametrize("value", ["a", "a" * 5, "\U0001f600" * 5, " \n "])
def test_text_within_its_bounds_is_accepted_as_it_is(value: str) -> None:
    assert _codec.check_text(value, "name", longest=5, shortest=1) is value


@given(st.text(st.characters()), st.integers(22, 60))
def test_any_text_can_be_made_storable(text: str, longest: int) -> None:
    made = _codec.storable_text(text, longest=longest)
    assert _codec.check_text(made, "message", longest=longest) == made


@given(storable_text)
def test_text_that_is_storable_is_left_alone(text: str) -> None:
    assert _codec.storable_text(text, longest=len(text)) == text


def test_what_cannot_be_stored_is_shown_escaped_and_the_middle_of_what_is_too_long_cut_out() -> None:
    assert _codec.storable_text("a\0b\ud800c", longest=100) == "a\\x00b\\ud800c"
    made = _codec.storable_text("begin" + "x" * 1000 + "end", longest=60)
    assert made.startswith("beginxxx")
    assert made.endswith("xxxend")
    assert "shortened" in made
