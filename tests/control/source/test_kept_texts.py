"""Texts that are kept come back as they were, and what somebody made of them is passed over."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.control.source.kept_texts import read_texts, render_texts

NAMES = st.lists(st.text(max_size=5), max_size=3).map(tuple)
TEXTS = st.lists(st.tuples(st.text(max_size=9), NAMES), max_size=4)


@given(TEXTS)
def test_what_is_kept_comes_back(texts):
    assert read_texts(json.loads(json.dumps(render_texts(texts)))) == tuple(texts)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, ()),
        ({}, ()),
        ([1, {}, {"text": 1, "names": []}, {"text": "a", "names": "b"}], ()),
        ([{"text": "a", "names": ["b", 1]}], (("a", ("b",)),)),
    ],
)
def test_what_makes_no_sense_is_left_out(value, expected):
    assert read_texts(value) == expected
