"""JSON that two readers could take for two things is none."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.l7.jwt.strict_json import read_object

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(), below, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), VALUES))
def test_objects_are_read(value: dict[str, object]) -> None:
    assert read_object(json.dumps(value).encode()) == value


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"a"',
        b"{} {}",
        b'{"a":1,"a":2}',
        b'{"a":{"b":1,"b":1}}',
        b'{"a":1,"\\u0061":2}',
        b'{"a":NaN}',
        b'{"a":-Infinity}',
        b'{"a":1e999}',
        b'{"a":' + b"9" * 5000 + b"}",
        b'{"a":01}',
        b"{'a':1}",
        b'{"a":"\xff"}',
        b'{"a":"\xc0\xaf"}',
        b"\xef\xbb\xbf{}",
        '{"a":1}'.encode("utf-16"),
        b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        b'{"a":"\n"}',
    ],
    ids=range(22),
)
def test_what_is_no_such_object_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (whatever it says)
        read_object(text)


@given(st.binary(max_size=50))
def test_garbage_raises_nothing_else(untrusted: bytes) -> None:
    try:
        read_object(untrusted)
    except ValueError:
        return
