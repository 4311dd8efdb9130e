"""VirtualServices are read whole, and what Istio's validation refuses has a fault at its field."""

import pytest

from tests.state.reading import read
from ztunnel.model.route_action import Edits, HeaderEdits
from ztunnel.model.route_match import Match, TextKind, TextMatch
from ztunnel.state.virtual_match import ConnectionMatch, RequestMatch, Sources
from ztunnel.state.virtual_service import (
    ConnectionRule,
    MirrorTarget,
    RequestRule,
    Target,
    WeightedTarget,
    read_virtual_service,
)

NOBODY = Sources({})


def service(text):
    return read(read_virtual_service, text)


def rule(text):
    found, faults = service(f"  hosts: [a]\n  http: [{text}]")
    assert faults == []
    return found.http[0]


def test_one_is_read():
    found, faults = service("""
  hosts: [Reviews, "*.b.example", 10.0.0.1]
  gateways: [mesh, x/y]
  exportTo: [., other]
  http:
  - name: to-v2
    match: [{uri: {prefix: /wpcatalog}}, {uri: {prefix: /consumercatalog}}]
    route:
    - destination: {host: Reviews.prod.svc.cluster.local, subset: v2, port: {number: 80}}
      weight: 75
      headers: {response: {remove: [foo]}, request: {set: {host: other}}}
    - {destination: {host: reviews}, weight: 25}
    timeout: 0s
    mirrors: [{destination: {host: m}, percentage: {value: 0.5}}, {destination: {host: n}}]
  - route: [{destination: {host: reviews}}]
  tcp: [{match: [{port: 27017}], route: [{destination: {host: mongo, port: {number: 5555}}}]}]
  tls: [{match: [{port: 443, sniHosts: [login.a]}], route: [{destination: {host: login.a}}]}]
""")
    assert faults == []
    assert (found.hosts, found.gateways, found.export_to) == (
        ("reviews", "*.b.example", "10.0.0.1"), ("mesh", "x/y"), (".", "other"),
    )  # fmt: skip
    first, second = found.http
    prefixes = (TextMatch(TextKind.PREFIX, "/wpcatalog"), TextMatch(TextKind.PREFIX, "/consumercatalog"))
    assert first == RequestRule(
        "to-v2",
        tuple(RequestMatch(Match(path=path), NOBODY) for path in prefixes),
        (
            WeightedTarget(
                Target("reviews.prod.svc.cluster.local", "v2", 80), 75,
                Edits(response=HeaderEdits(("foo",))), "other",
            ),
            WeightedTarget(Target("reviews"), 25),
        ),
        timeout=0.0,
        mirrors=(MirrorTarget(Target("m"), 5000), MirrorTarget(Target("n"))),
    )  # fmt: skip
    assert second == RequestRule(targets=(WeightedTarget(Target("reviews")),))
    to = (WeightedTarget(Target("mongo", "", 5555)),)
    assert found.tcp == (ConnectionRule((ConnectionMatch(NOBODY, 27017),), to),)
    assert found.tls[0].matches == (ConnectionMatch(NOBODY, 443, (), ("login.a",)),)
    assert not found.is_delegate


def test_one_that_others_delegate_to_has_no_hosts():
    found, faults = service("  http: [{route: [{destination: {host: a}}]}]")
    assert (found.is_delegate, faults) == (True, [])


def test_what_a_rule_says_beside_its_route():
    found = rule("{delegate: {name: d, namespace: n}, headers: {request: {add: {a: b}}}}")
    assert (found.delegate, found.edits) == (("n", "d"), Edits(HeaderEdits(add=(("a", "b"),))))
    assert rule("{delegate: {name: d}}").delegate == ("", "d")
    found = rule("{route: [{destination: {host: a}}], mirror: {host: m}, mirrorPercentage: {value: 10}}")
    assert found.mirrors == (MirrorTarget(Target("m"), 100_000),)
    found = rule("{route: [{destination: {host: a}}], mirror: {host: m}, mirrorPercent: 10}")
    assert found.mirrors == (MirrorTarget(Target("m"), 100_000),)
    found = rule("{route: [{destination: {host: a}}], retries: {attempts: 3}, "
                 "fault: {abort: {httpStatus: 500}}, "
                 "corsPolicy: {allowMethods: [GET]}, rewrite: {uri: /}}")  # fmt: skip
    assert found.retries.asked == 3
    assert found.fault.abort.status == 500
    assert found.cors.methods == ("GET",)
    assert found.rewrite.path.text == "/"
    assert rule("{redirect: {uri: /x}}").response.path.text == "/x"
    assert rule("{directResponse: {status: 204}}").response.status == 204


RULE = "hosts: [a]\n  http:\n  - "


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("hosts: [a]", ["spec"]),
        ("hosts: ['a_b!']\n  http: [{redirect: {uri: /}}]", ["spec.hosts[0]"]),
        ("hosts: [a, A]\n  http: [{redirect: {uri: /}}]", ["spec"]),
        ("gateways: [g]\n  http: [{redirect: {uri: /}}]", ["spec"]),
        ("host: [a]\n  hosts: [a]\n  http: [{redirect: {uri: /}}]", ["spec.host"]),
        (f"{RULE}{{}}", ["spec.http[0]"]),
        (f"{RULE}{{route: [{{destination: {{host: a}}}}], redirect: {{uri: /}}}}", ["spec.http[0]"]),
        (f"{RULE}{{redirect: {{uri: /}}, directResponse: {{status: 200}}}}", ["spec.http[0]"]),
        (f"{RULE}{{delegate: {{name: a}}, redirect: {{uri: /}}}}", ["spec.http[0]"]),
        (f"{RULE}{{redirect: {{uri: /}}, rewrite: {{uri: /}}}}", ["spec.http[0]"]),
        (f"{RULE}{{redirect: {{uri: /}}, fault: {{abort: {{httpStatus: 500}}}}}}", ["spec.http[0]"]),
        (f"{RULE}{{route: [{{destination: {{host: a}}}}], rewrite: {{authority: x}}, "
         "headers: {request: {set: {host: y}}}}", ["spec.http[0]"]),
        (f"{RULE}{{route: [{{destination: {{host: a}}, weight: 0}}, {{destination: {{host: b}}}}]}}",
         ["spec.http[0]"]),
        (f"{RULE}{{route: [{{destination: {{host: a}}, weight: -1}}]}}", ["spec.http[0].route[0]"]),
        (f"{RULE}{{route: [{{destination: {{host: '*.a'}}}}]}}", ["spec.http[0].route[0].destination.host"]),
        (f"{RULE}{{route: [{{destination: {{}}}}]}}", ["spec.http[0].route[0].destination"]),
        (f"{RULE}{{route: [{{}}]}}", ["spec.http[0].route[0]"]),
        (f"{RULE}{{route: [{{destination: {{host: a, port: 80}}}}]}}",
         ["spec.http[0].route[0].destination.port"]),
        (f"{RULE}{{delegate: {{namespace: a}}}}", ["spec.http[0].delegate"]),
        (f"{RULE}{{redirect: {{uri: /}}, timeout: 5}}", ["spec.http[0].timeout"]),
        (f"{RULE}{{redirect: {{uri: /}}, timeouts: 5s}}", ["spec.http[0].timeouts"]),
        (f"{RULE}{{route: [{{destination: {{host: a}}}}], mirror: {{host: m}}, "
         "mirrors: [{destination: {host: n}}]}", ["spec.http[0]"]),
        (f"{RULE}{{route: [{{destination: {{host: a}}}}], mirrors: [{{percentage: {{value: 1}}}}]}}",
         ["spec.http[0].mirrors[0]"]),
        ("http: [{delegate: {name: a}}]", ["spec.http[0]"]),
        ("hosts: [a]\n  tls: [{route: [{destination: {host: a}}]}]", ["spec.tls[0]"]),
        ("hosts: [a]\n  tcp: [{match: [{port: 1}]}]", ["spec.tcp[0]"]),
        ("hosts: [a]\n  tcp: [{route: [{destination: {host: a}}, {destination: {host: b}}]}]",
         ["spec.tcp[0]"]),
    ],
)  # fmt: skip
def test_what_is_wrong_has_a_fault(text, fields):
    assert service(f"  {text}")[1] == fields


def test_regular_expressions_stand_beside_delegates():
    """istio/istio#47148: what both compare by one is a conflict, and nothing else is."""
    assert rule("{delegate: {name: a}, match: [{headers: {cookie: {regex: '^.*dev=flo.*$'}}}]}").delegate
    assert service("  http: [{match: [{uri: {regex: a}}], redirect: {uri: /}}]")[1] == []


def test_without_a_spec_it_has_a_fault():
    assert read(read_virtual_service, " ~")[1] == [""]
