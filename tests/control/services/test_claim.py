"""What an entry claims, and how its workloads are reached."""

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from tests.control.services.test_ownership import HBONE, entry, workload
from ztunnel.control.services.claim import (
    as_entry,
    claimed,
    endpoints_of,
    has_tunnel,
    labels_of,
    single_addresses,
    speaks_hbone,
    uses_waypoint,
    virtual_of,
)


@pytest.mark.parametrize(
    ("labels", "annotations", "expected"),
    [
        ({}, {}, False),
        (HBONE, {}, True),
        ({"networking.istio.io/tunnel": "quic,http"}, {}, True),
        ({"networking.istio.io/tunnel": "https"}, {}, False),
        ({}, {"ambient.istio.io/redirection": "enabled"}, True),
        ({}, {"ambient.istio.io/redirection": "disabled"}, False),
    ],
)
def test_who_speaks_hbone(labels, annotations, expected):
    assert speaks_hbone(workload("w", "x", "10.0.0.1", labels, annotations=annotations)) is expected
    assert has_tunnel(labels) is (expected and bool(labels))


def test_every_address_that_an_entry_names_is_claimed():
    one = replace(
        entry("e", "x", addresses=["192.0.2.1", "192.0.2.0/24", "2001:db8::1"], endpoints=["192.0.2.9"]),
        allocated={"a.example": (ip_address("240.0.0.1"),)},
    )
    assert [str(ip) for ip in single_addresses(one)] == ["192.0.2.1", "2001:db8::1"]
    assert [str(ip) for ip in virtual_of(one)] == ["192.0.2.1", "2001:db8::1", "240.0.0.1"]
    assert [str(ip) for ip in claimed(one)] == ["192.0.2.1", "2001:db8::1", "240.0.0.1", "192.0.2.9"]
    assert one.addresses[1] == ip_network("192.0.2.0/24")
    machine = workload("w", "x", "192.0.2.3")
    assert [str(ip) for ip in claimed(machine)] == ["192.0.2.3"]
    assert endpoints_of(machine) == (machine.endpoint,)


def test_labels_are_those_that_workloads_are_selected_by():
    assert labels_of(workload("w", "x", "192.0.2.3")) == HBONE
    assert labels_of(entry("e", "x", labels={"a": "b"})) == {"a": "b"}
    assert uses_waypoint({"istio.io/use-waypoint": "wp"})
    assert not uses_waypoint({"istio.io/use-waypoint": "none"})
    assert not uses_waypoint({})
    assert as_entry("no entry") is as_entry(None) is None
    assert as_entry(machine := workload("w", "x", "192.0.2.3")) is machine
