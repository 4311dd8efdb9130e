"""Plain values are read with faults that name the field, strictly or as what a newer schema has checked."""

import pytest

from ztunnel.state.value import ValueField


def faults_of(value, use, **how):
    faults = []
    use(ValueField(value, "", faults, **how))
    return [(fault.field, fault.message) for fault in faults]


@pytest.mark.parametrize(
    ("value", "use", "expected"),
    [
        ({"a": 1}, lambda root: root.text("a"), [("a", "must be a string, is a number; write it in quotes")]),
        ({"a": {}}, lambda root: root.each("a"), [("a", "must be a list, is a mapping")]),
        ({"a": "x"}, lambda root: root.flag("a"), [("a", "must be a boolean, is a string")]),
        (
            {"a": 1.5},
            lambda it: it.sub("a").as_number(),
            [("a", "must be a decimal number, is a number")],
        ),
        ({"a": None}, lambda root: root.text("a"), []),
        ([], lambda root: root.only(["a"]), [("", "must be a mapping, is a list")]),
        ({"rulez": []}, lambda root: root.only(["rules"]), [("rulez", "unknown field; did you mean rules?")]),
    ],
)
def test_what_is_wrong_is_noted_with_its_field(value, use, expected):
    assert faults_of(value, use) == expected


def test_fields_that_are_not_known_are_left_alone_where_it_is_not_strict():
    assert faults_of({"rulez": []}, lambda root: root.only(["rules"]), strict=False) == []
    assert faults_of([], lambda root: root.only(["rules"]), strict=False) == [
        ("", "must be a mapping, is a list")
    ]
    assert faults_of({"a": {"b": 1}}, lambda root: root.sub("a").only([]), strict=False) == []
