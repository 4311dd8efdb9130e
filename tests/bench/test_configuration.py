"""What the laboratory and the Envoys are told."""

from __future__ import annotations

from pathlib import Path

import yaml

from bench.configuration import envoys, manifests


def test_all_namespaces_have_the_same_pods_and_only_one_is_opted_in() -> None:
    documents = list(yaml.safe_load_all(manifests(Path("/tmp/x"))))
    pods = {(d["metadata"]["namespace"], d["metadata"]["name"]) for d in documents if d["kind"] == "Pod"}
    modes = [
        d["metadata"]["labels"]["istio.io/dataplane-mode"] for d in documents if d["kind"] == "Namespace"
    ]
    assert pods == {(ns, name) for ns in ("meshed", "plain", "proxied") for name in ("client", "near", "far")}
    assert modes == ["ambient", "none", "none"]


def test_the_client_s_envoy_dials_the_server_s_by_its_address_and_identity() -> None:
    texts = envoys(Path("/certs"), "10.244.2.2", 15002)
    client, server = (yaml.safe_load(texts[end])["static_resources"] for end in ("client", "server"))
    assert client["listeners"][0]["address"]["socket_address"] == {
        "address": "127.0.0.1",
        "port_value": 15002,
    }
    assert server["listeners"][0]["address"]["socket_address"] == {
        "address": "10.244.2.2",
        "port_value": 15008,
    }
    assert '"10.244.2.2:80"' in texts["client"]
    assert "spiffe://cluster.local/ns/proxied/sa/server" in texts["client"]
    assert "spiffe://cluster.local/ns/proxied/sa/client" in texts["server"]
