"""DestinationRules are read with their subsets."""

import pytest

from tests.state.reading import read
from ztunnel.model.traffic import Balance, Balancing, PortTraffic, Traffic
from ztunnel.state.destination_rule import Subset, read_destination_rule


def test_one_is_read():
    found, faults = read(
        read_destination_rule,
        """
  host: Reviews
  exportTo: [., x]
  workloadSelector: {matchLabels: {app: a}}
  trafficPolicy: {loadBalancer: {simple: RANDOM}, tunnel: {}}
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}, trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}}
  - {name: all}
""",
    )
    assert faults == []
    assert (found.host, found.export_to, found.selector, found.unread) == (
        "reviews", (".", "x"), {"app": "a"}, ("tunnel",),
    )  # fmt: skip
    assert found.traffic == PortTraffic(Traffic(Balancing(Balance.RANDOM), unsupported=("tunnel",)))
    assert found.subsets == (
        Subset("v1", {"version": "v1"}),
        Subset("v2", {"version": "v2"}, PortTraffic(Traffic(Balancing(Balance.ROUND_ROBIN)))),
        Subset("all", {}),
    )


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("{host: '*.example.com'}", []),
        ("{host: '*'}", []),
        ("{}", ["spec"]),
        ("{host: 'a b'}", ["spec"]),
        ("{host: a, subsets: [{name: v1}, {name: v1}]}", ["spec.subsets[1]"]),
        ("{host: a, subsets: [{labels: {a: b}}]}", ["spec.subsets[0]"]),
        ("{host: a, subsets: [{name: a, labels: {a: '*'}}]}", ["spec.subsets[0].labels.a"]),
        ("{host: a, subset: []}", ["spec.subset"]),
        ("{host: a, trafficPolicy: {tls: {mode: X}}}", ["spec.trafficPolicy.tls.mode"]),
        ("~", [""]),
    ],
)
def test_what_is_wrong_has_a_fault(text, fields):
    assert read(read_destination_rule, f"  {text}")[1] == fields
