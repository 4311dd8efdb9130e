"""`clientSelectors` of a RateLimitPolicy, as they are written and what they ask."""

from __future__ import annotations

import json
from ipaddress import ip_network
from typing import Any

import pytest

from ztunnel.model.http_policy import Attribute, Term, TextKind, TextMatch
from ztunnel.model.rate_limit import LimitKey
from ztunnel.state.client_selector import read_selectors
from ztunnel.state.manifest import Notes, compose

EXACT, PREFIX, REGEX = TextKind.EXACT, TextKind.PREFIX, TextKind.REGEX


def read(*selectors: Any) -> tuple[tuple[Term, ...], list[LimitKey], list[tuple[str, str]]]:
    notes = Notes()
    place = compose(json.dumps({"clientSelectors": selectors}), notes)
    assert place is not None
    terms, keys = read_selectors(place)
    return terms, keys, [(fault.field, fault.message) for fault in notes.faults]


def text(attribute: Attribute, *argument: str, kind: TextKind = EXACT, value: str = "a") -> Term:
    return Term(attribute, (TextMatch(kind, value),), (), argument)


@pytest.mark.parametrize(
    ("selector", "terms"),
    [
        ({"headers": [{"name": "X-A", "value": "a"}]}, [text(Attribute.HEADER, "x-a")]),
        (
            {"headers": [{"name": "x-a", "type": "Prefix", "value": "a"}]},
            [text(Attribute.HEADER, "x-a", kind=PREFIX)],
        ),
        (
            {"headers": [{"name": "x-a", "type": "RegularExpression", "value": "a|b"}]},
            [text(Attribute.HEADER, "x-a", kind=REGEX, value="a|b")],
        ),
        (
            {"headers": [{"name": "x-a", "value": "a", "invert": True}]},
            [Term(Attribute.HEADER, (), (TextMatch(EXACT, "a"),), ("x-a",))],
        ),
        (
            {"headers": [{"name": "x-a"}]},
            [Term(Attribute.HEADER, (TextMatch(TextKind.PRESENCE),), (), ("x-a",))],
        ),
        (
            {"headers": [{"name": "x-a", "invert": True}]},
            [Term(Attribute.HEADER, (), (TextMatch(TextKind.PRESENCE),), ("x-a",))],
        ),
        ({"claims": [{"name": "realm.role", "value": "a"}]}, [text(Attribute.CLAIM, "realm", "role")]),
        (
            {"methods": [{"value": "GET"}], "namespaces": [{"value": "a"}]},
            [text(Attribute.METHOD, value="GET"), text(Attribute.NAMESPACE)],
        ),
        (
            {"principals": [{"type": "Prefix", "value": "cluster.local/ns/a/"}]},
            [text(Attribute.PRINCIPAL, kind=PREFIX, value="cluster.local/ns/a/")],
        ),
        (
            {"path": {"value": "/a/"}},
            [Term(Attribute.PATH, (TextMatch(EXACT, "/a"), TextMatch(PREFIX, "/a/")))],
        ),
        ({"path": {"value": "/"}}, [text(Attribute.PATH, kind=PREFIX, value="/")]),
        ({"path": {"type": "Exact", "value": "/a"}}, [text(Attribute.PATH, value="/a")]),
        (
            {"path": {"type": "RegularExpression", "value": "/a.*"}},
            [text(Attribute.PATH, kind=REGEX, value="/a.*")],
        ),
        ({"sourceCIDR": {"value": "10.1.2.3/8"}}, [Term(Attribute.SOURCE_IP, (ip_network("10.0.0.0/8"),))]),
        (
            {"sourceCIDR": {"value": "fd00::/8", "invert": True}},
            [Term(Attribute.SOURCE_IP, (), (ip_network("fd00::/8"),))],
        ),
    ],
)
def test_what_is_asked(selector: Any, terms: list[Term]) -> None:
    assert read(selector) == (tuple(terms), [], [])


def test_values_are_told_apart() -> None:
    terms, keys, faults = read(
        {"headers": [{"name": "X-User", "type": "Distinct"}], "path": {"type": "Distinct"}},
        {"principals": [{"type": "Distinct"}], "sourceCIDR": {"type": "Distinct", "value": "0.0.0.0/0"}},
        {"sourceCIDR": {"type": "Distinct"}, "claims": [{"name": "sub", "type": "Distinct"}]},
    )
    assert faults == []
    assert terms == (Term(Attribute.SOURCE_IP, (ip_network("0.0.0.0/0"),)),)
    assert keys == [
        LimitKey(Attribute.HEADER, ("x-user",)),
        LimitKey(Attribute.PATH),
        LimitKey(Attribute.PRINCIPAL),
        LimitKey(Attribute.SOURCE_IP),
        LimitKey(Attribute.CLAIM, ("sub",)),
        LimitKey(Attribute.SOURCE_IP),
    ]


@pytest.mark.parametrize(
    ("selector", "field", "said"),
    [
        ({}, "", "one of claims, headers"),
        ({"header": []}, ".header", "did you mean headers"),
        ({"headers": [{"name": "", "value": "a"}]}, ".headers[0]", "the name of a header"),
        ({"headers": [{"name": "a b", "value": "a"}]}, ".headers[0]", "the name of a header"),
        ({"headers": [{"name": "a", "value": "a", "typ": 1}]}, ".headers[0].typ", "did you mean type"),
        (
            {"headers": [{"name": "a", "type": "Like", "value": "a"}]},
            ".headers[0].type",
            "must be one of Exact",
        ),
        (
            {"headers": [{"name": "a", "type": "RegularExpression", "value": "("}]},
            ".headers[0].value",
            "not a regular",
        ),
        ({"headers": [{"name": "a", "type": "Distinct", "value": "a"}]}, ".headers[0]", "neither value nor"),
        (
            {"headers": [{"name": "a", "type": "Distinct", "invert": True}]},
            ".headers[0]",
            "neither value nor",
        ),
        ({"claims": [{"name": "a..b", "value": "a"}]}, ".claims[0]", "the name of a claim"),
        ({"claims": [{"name": "a"}]}, ".claims[0]", "value is needed"),
        ({"methods": [{}]}, ".methods[0]", "value is needed"),
        ({"path": {"value": "a"}}, ".path", "begin with a slash"),
        ({"path": {"type": "Exact", "value": "a"}}, ".path", "begin with a slash"),
        ({"sourceCIDR": {}}, ".sourceCIDR", "value is needed"),
        ({"sourceCIDR": {"value": "10.0.0.0/33"}}, ".sourceCIDR.value", "10.0.0.0/33"),
        ({"sourceCIDR": {"type": "Distinct", "invert": True}}, ".sourceCIDR", "value is needed"),
    ],
)
def test_what_is_wrong_is_said(selector: Any, field: str, said: str) -> None:
    _, _, faults = read(selector)
    assert any(each == f"clientSelectors[0]{field}" and said in message for each, message in faults), faults


def test_there_are_not_too_many() -> None:
    _, _, faults = read(*[{"path": {"value": "/"}}] * 9)
    assert faults == [("", "more than 8 clientSelectors")]
