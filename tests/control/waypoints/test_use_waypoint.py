"""Who names a Gateway, and whom it admits."""

import pytest

from ztunnel.control.source.document import key_of
from ztunnel.control.waypoints.use_waypoint import admits, labels_of, name_in, named
from ztunnel.state.gateway import Gateway, Listener
from ztunnel.state.kube import Namespace
from ztunnel.state.meta import Meta
from ztunnel.state.networking import EntryEndpoint, WorkloadEntry

USE, WHERE = "istio.io/use-waypoint", "istio.io/use-waypoint-namespace"


@pytest.mark.parametrize(
    ("labels", "name"),
    [
        ({}, None),
        ({USE: "none"}, None),
        ({USE: "none", WHERE: "infra"}, None),
        ({WHERE: "infra"}, None),
        ({USE: "wp"}, ("shop", "wp")),
        ({USE: "wp", WHERE: "infra"}, ("infra", "wp")),
    ],
)
def test_a_gateway_is_named_by_a_label_in_the_namespace_of_another(labels, name):
    assert name_in(labels, "shop") == name
    space = Namespace(Meta("shop", "", labels, {}))
    assert named(key_of(space), space) == name
    entry = WorkloadEntry(Meta("e", "shop", {}, {}), EntryEndpoint("", None, {}, {}), labels)
    assert named(key_of(entry), entry) == name
    assert labels_of(entry) == labels


def test_what_has_no_waypoint_names_none():
    one = Gateway(Meta("g", "shop", {USE: "wp"}, {}), "x", ())
    assert named(key_of(one), one) is None


@pytest.mark.parametrize(("admitted", "expected"), [("Same", False), ("All", True), ("None", False)])
def test_another_namespace_is_admitted_by_the_listener_for_tunnels(admitted, expected):
    listeners = (Listener(80, "HTTP", "All"), Listener(15008, "HBONE", admitted))
    gateway = Gateway(Meta("g", "infra", {}, {}), "x", listeners)
    assert admits(gateway, "shop", {}) is expected
