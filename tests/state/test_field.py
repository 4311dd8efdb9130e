"""A field reads the same whatever its object is written in."""

import json

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ztunnel.state.field import join
from ztunnel.state.manifest import Notes, compose
from ztunnel.state.value import ValueField

NAMES = st.sampled_from(["name", "spec", "a.b/c", ""])
SCALARS = st.sampled_from([None, True, 0, -7, 10**20, 0.5, "", "x", "1", "true", "~", "é"])
VALUES = st.recursive(
    SCALARS,
    lambda each: st.lists(each, max_size=2) | st.dictionaries(NAMES, each, max_size=2),
    max_leaves=5,
)


def read(place, depth=2):
    """Everything that can be asked of a field."""
    return [
        place.path, place.is_null(), place.is_mapping(), place.as_text("d"), place.as_number(),
        place.as_decimal(),
        place.holds_number(), place.text("name", "d"), place.flag("name"), place.only(["name"]),
        [(name, read(below, depth - 1)) for name, below in place.pairs()] if depth else 0,
        [read(below, depth - 1) for below in place.each("spec")] if depth else 0,
        read(below, depth - 1) if depth and (below := place.sub("spec")) else 0,
    ]  # fmt: skip


@settings(max_examples=40)
@given(st.dictionaries(NAMES, VALUES, min_size=1, max_size=2))
def test_yaml_and_plain_values_read_the_same_with_the_same_faults(value):
    notes, faults = Notes(), []
    root = compose(yaml.safe_dump(value, allow_unicode=True, sort_keys=False), notes)
    assert root is not None
    assert read(ValueField(value, "", faults)) == read(root)
    assert [(one.field, one.message) for one in faults] == [(one.field, one.message) for one in notes.faults]


@settings(max_examples=40)
@given(VALUES)
def test_any_value_of_json_can_be_read(value):
    read(ValueField(json.loads(json.dumps(value)), "", []))


@pytest.mark.parametrize(
    ("path", "name", "expected"),
    [("", "spec", "spec"), ("spec", "ports", "spec.ports"), ("a", "x.y/z", "a[x.y/z]")],
)
def test_a_path_is_written_as_one_reads_it(path, name, expected):
    assert join(path, name) == expected
