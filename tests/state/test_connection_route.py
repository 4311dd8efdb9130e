"""TCPRoutes and TLSRoutes are read."""

import pytest

from tests.state.reading import read
from ztunnel.state.connection_route import BackendRule, TCPRoute, TLSRoute, read_tcp_route, read_tls_route
from ztunnel.state.route_filter import Backend, Reference


@pytest.mark.parametrize(("reader", "kind"), [(read_tcp_route, TCPRoute), (read_tls_route, TLSRoute)])
def test_one_is_read(reader, kind):
    found, faults = read(
        reader,
        """
  parentRefs: [{group: "", kind: Service, name: db, port: 5432}]
  hostnames: [db.example]
  rules:
  - {name: r, backendRefs: [{name: db-v1, port: 5432, weight: 9}, {name: db-v2, port: 5432}]}
""",
    )
    backends = (
        Backend(Reference("", "Service", "", "db-v1", 5432), 9),
        Backend(Reference("", "Service", "", "db-v2", 5432)),
    )
    assert faults == []
    parents = (Reference("", "Service", "", "db", 5432),)
    assert found == kind(found.meta, parents, (BackendRule("r", backends),))


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("~", [""]),
        ("{parentRef: []}", ["spec.parentRef"]),
        ("{rules: [{backendRef: []}]}", ["spec.rules[0].backendRef"]),
        ("{rules: [{backendRefs: [{port: 1}]}]}", ["spec.rules[0].backendRefs[0]"]),
    ],
)
def test_what_is_wrong_has_a_fault(text, fields):
    assert read(read_tcp_route, f"  {text}")[1] == fields
