"""Of two kinds of routes that are bound to one port only the more specific one is asked (GEP-1294)."""

import pytest

from ztunnel.control.routes.specificity import left_ports, taken_ports

EVERY = (80, 90)


@pytest.mark.parametrize(
    ("bound", "taken"),
    [
        ([("GRPCRoute", (80,))], {"HTTPRoute": {80}}),
        ([("GRPCRoute", ())], {"HTTPRoute": {80, 90}}),
        ([("GRPCRoute", (80,)), ("GRPCRoute", (90,))], {"HTTPRoute": {80, 90}}),
        ([("TLSRoute", (90,)), ("GRPCRoute", (80,))], {"TCPRoute": {90}, "HTTPRoute": {80}}),
        ([("HTTPRoute", ()), ("TCPRoute", ())], {}),
        ([], {}),
    ],
)
def test_the_more_specific_kind_takes_its_ports(bound, taken):
    assert taken_ports(bound, EVERY) == taken


@pytest.mark.parametrize(
    ("ports", "taken", "left"),
    [
        ((), frozenset(), ()),
        ((80,), frozenset(), (80,)),
        ((), frozenset({80}), (90,)),
        ((), frozenset({80, 90}), None),
        ((80,), frozenset({80}), None),
        ((80,), frozenset({90}), (80,)),
    ],
)
def test_what_is_left_to_the_other(ports, taken, left):
    assert left_ports(ports, taken, EVERY) == left
