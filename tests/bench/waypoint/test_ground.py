"""What the two waypoints of the benchmark stand between, and what the Envoy is told."""

from __future__ import annotations

from pathlib import Path

import yaml

from bench.cells import ENVOY, OURS
from bench.waypoint.ground import envoy, manifests


def objects(name: str) -> list[dict]:
    return [one for one in yaml.safe_load_all(manifests(name, Path("/tmp/x"))) if one]


def test_both_have_the_same_around_them_but_for_the_namespace() -> None:
    ours = [one for one in objects(OURS) if one["kind"] != "Gateway"]
    said = yaml.safe_dump(ours).replace("namespace: ours", "namespace: envoy").replace("/ours", "/envoy")
    theirs = yaml.safe_dump(objects(ENVOY))
    assert said.replace("name: ours", "name: envoy") == theirs


def test_the_envoy_takes_tunnels_and_leaves_by_tunnels() -> None:
    told = yaml.safe_load(envoy(Path("/certs"), "10.0.0.1", "10.0.0.2"))["static_resources"]
    assert [one["name"] for one in told["listeners"]] == [
        "connect_terminate",
        "main_internal",
        "originate1",
        "originate2",
    ]
    assert told["listeners"][0]["address"]["socket_address"] == {"address": "10.0.0.1", "port_value": 15008}
    text = yaml.safe_dump(told)
    assert "$" not in text
    assert "10.0.0.2:80" in text
    assert "10.0.0.2:81" in text
    assert "/certs/wp.key" in text
