"""The explanation: each policy with what it made of the connection."""

from __future__ import annotations

from tests.builders import connection, match, policy, workload, world_of
from ztunnel.authz.explanation import explain, render

SERVER = workload("server").at("10.0.1.1").selected_by("default/late")
CALL = connection("10.0.0.1", "10.0.1.1:8080", "default/client")


def test_it_says_of_each_policy_why_it_matches_or_not() -> None:
    policies = [
        policy("a"),
        policy("b").rule(),
        policy("c").when(principals=["x"]).when(namespaces=["default"]),
        policy("d", "root")
        .everywhere()
        .deny()
        .rule(
            [match(destination_ports=[8080])], [match(namespaces=["x"]), match(source_ips=["192.0.2.0/24"])]
        )
        .when(principals=["y"]),
        policy("e").dry().deny().rule([match()]),
    ]
    server = SERVER.selected_by()
    found = explain(world_of(server, *policies), server, CALL)
    assert render(found).splitlines() == [
        "ADMITTED: allowed by: default/b",
        "  DENY root/d [global] does not match: rule 1: namespaces or source_ips; rule 2: principals",
        "  ALLOW default/a [namespace] does not match: it has no rules",
        "  ALLOW default/b [namespace] matches: rule 1 has no conditions",
        "  ALLOW default/c [namespace] matches: rule 2",
        "  DENY (dry run) default/e [namespace] does not match: rule 1: (no condition)",
    ]
    assert found.admitted
    assert [each.matched for each in found.considered] == [False, False, True, True, False]


def test_it_says_that_nothing_selects() -> None:
    server = SERVER.selected_by()
    dry = policy("d").deny().dry().rule()
    assert (
        explain(world_of(server), server, CALL).verdict == "no policy allows selectively, so all may connect"
    )
    assert explain(world_of(server, dry), server, CALL).verdict.endswith(
        "(dry run: explicitly denied by: default/d)"
    )


def test_it_says_which_policy_is_missing() -> None:
    found = explain(world_of(SERVER), SERVER, CALL)
    assert not found.admitted
    assert render(found).splitlines() == [
        "REFUSED: connection closed due to policy rejection: policy not received yet: default/late",
        "  default/late [workload selector] has not been received",
    ]
