"""Changes of headers are read, of Istio and of the Gateway API."""

import pytest

from tests.state.reading import read
from ztunnel.model.route_action import HeaderEdits
from ztunnel.state.header_edits import read_edits, read_modifier


def istio(text, name="request"):
    return read(lambda place: read_edits(place, name), f"  {text}", "h")


def modifier(text):
    return read(read_modifier, f"  {text}", "f")


def test_istios_are_read_and_an_authority_is_apart():
    found, faults = istio("{request: {set: {X-A: '1', Host: a.b}, add: {y: '%REQ(z)%'}, remove: [Q]}}")
    assert found == (HeaderEdits(("q",), (("x-a", "1"),), (("y", "%REQ(z)%"),)), "a.b")
    assert faults == []
    assert istio("{}") == ((HeaderEdits(), ""), [])
    assert istio("{request: {add: {':authority': a}, set: {host: b}}}") == ((HeaderEdits(), "b"), [])


@pytest.mark.parametrize(
    ("text", "name", "field"),
    [
        ("{request: {sett: {}}}", "request", "h.request.sett"),
        ("{request: {set: {':path': x}}}", "request", "h.request.set[:path]"),
        ("{request: {set: {'': x}}}", "request", "h.request.set[]"),
        ("{response: {set: {host: x}}}", "response", "h.response.set.host"),
        ("{request: {remove: [host]}}", "request", "h.request.remove[0]"),
        ('{request: {set: {x: "a\\nb"}}}', "request", "h.request.set.x"),
        ("{request: {set: {x: '100%'}}}", "request", "h.request.set.x"),
        ("{request: {set: {x: 1}}}", "request", "h.request.set.x"),
    ],
)
def test_what_is_wrong_has_a_fault(text, name, field):
    assert istio(text, name)[1] == [field]


def test_those_of_the_gateway_api_are_plain_text_of_which_the_first_counts():
    found, faults = modifier("{set: [{name: A, value: 5%}, {name: a, value: x}], add: [{name: b, value: c}], "
                             "remove: [D]}")  # fmt: skip
    assert (found, faults) == (HeaderEdits(("d",), (("a", "5%%"),), (("b", "c"),)), [])


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("{set: [{name: 'a b', value: c}]}", "f.set[0]"),
        ("{set: [{name: host, value: c}]}", "f.set[0]"),
        ('{add: [{name: a, value: "\\r"}]}', "f.add[0].value"),
        ("{replace: []}", "f.replace"),
    ],
)
def test_what_is_wrong_with_them_has_a_fault(text, field):
    assert modifier(text)[1] == [field]
