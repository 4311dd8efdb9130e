"""To what a Service or ServiceEntry was attached is read of its status: the words of the control plane."""

import json

import pytest

from ztunnel.state.bound import read_bound
from ztunnel.state.kube import read_service
from ztunnel.state.manifest import Notes, compose
from ztunnel.state.networking import read_service_entry

ENTRY = "{hosts: [a.example], ports: [{number: 80, name: http}], resolution: DNS}"


@pytest.mark.parametrize(
    ("message", "bound"),
    [
        ("Successfully attached to waypoint shop/wp", "shop/wp"),
        (
            "Successfully attached to waypoint shop/a.b. Ingress traffic will traverse the waypoint",
            "shop/a.b",
        ),
        ('waypoint "shop/wp" is gone: calls are refused until it is back', "shop/wp"),
        (
            "Successfully attached to waypoint shop/wp. It has no address: calls go to its endpoints",
            "shop/wp",
        ),
        ('waypoint "shop/wp" is not ready', ""),
        ("we are not permitted", ""),
        ("", ""),
    ],
)
def test_what_an_object_is_attached_to_is_read_of_its_status(message, bound):
    condition = json.dumps({"type": "istio.io/WaypointBound", "status": "True", "message": message})
    status, notes = f"status: {{conditions: [{{type: x}}, {condition}]}}", Notes()
    assert read_bound(compose(status, notes)) == bound
    for reader, spec in ((read_service, "{}"), (read_service_entry, ENTRY)):
        found = reader(compose(f"metadata: {{name: a, namespace: shop}}\nspec: {spec}\n{status}", notes))
        assert found.bound == bound
    assert notes.faults == []


def test_without_a_status_it_is_attached_to_nothing():
    assert read_bound(compose("spec: {}", Notes())) == ""
