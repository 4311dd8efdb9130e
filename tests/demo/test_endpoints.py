from itertools import count

from ztunnel.demo.endpoints import given_endpoints
from ztunnel.demo.manifest import Key, parse
from ztunnel.demo.schedule import complete

TEXT = """
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: db-x, namespace: t, labels: {kubernetes.io/service-name: db}}
addressType: IPv4
ports: [{name: sql, port: 5432}]
endpoints:
- {addresses: [192.0.2.1]}
- {addresses: [192.0.2.2], conditions: {ready: false}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: db-y, namespace: t, labels: {kubernetes.io/service-name: db}}
addressType: IPv6
ports: [{name: sql, port: 5432}]
endpoints: [{addresses: ["2001:db8::1"]}]
---
apiVersion: v1
kind: Endpoints
metadata: {name: old, namespace: t}
subsets:
- addresses: [{ip: 192.0.2.7}, {ip: "2001:db8::7"}]
  notReadyAddresses: [{ip: 192.0.2.8}]
  ports: [{port: 80}]
"""
UIDS = map(str, count())
OBJECTS = complete({}, parse(TEXT, ""), UIDS.__next__)


def found(name: str, namespace: str = "t") -> dict[str, list[str]]:
    ends = given_endpoints(Key("", "Service", namespace, name), OBJECTS)
    return {port: list(map(str, each)) for port, each in ends.items()}


def test_the_ready_endpoints_of_slices_by_the_ports_name() -> None:
    assert found("db") == {"sql": ["192.0.2.1:5432", "[2001:db8::1]:5432"]}


def test_the_older_kind_is_joined_by_its_name() -> None:
    assert found("old") == {"": ["192.0.2.7:80", "[2001:db8::7]:80"]}


def test_those_of_others_are_theirs() -> None:
    assert found("db", "other") == found("old", "other") == found("none") == {}
