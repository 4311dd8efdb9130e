"""The lines of an explanation, and its values."""

from __future__ import annotations

import json

from tests.builders import policy, service, workload, world_of
from ztunnel.explain.explanation import explain_call
from ztunnel.explain.names import find_call
from ztunnel.explain.path import Explanation, Path, Way
from ztunnel.explain.text import as_text, as_values

WEB = service("web").at("10.96.0.1").port(80, 8080)
CLIENT = workload("client").at("10.0.0.1").on("n1").hbone()
FAR = workload("far").at("10.0.1.1").on("n2").hbone().serves(WEB)
ALLOW = policy("allow").when(principals=["cluster.local/ns/default/sa/other"])
TRIED = policy("trial").deny().rule().dry()


def found() -> Explanation:
    world = world_of(CLIENT, WEB, FAR, ALLOW, TRIED)
    return explain_call(world, find_call(world, "default/client", "web.default:80"))


def test_it_reads_from_top_to_bottom() -> None:
    assert as_text(found()).splitlines() == [
        "from  default/client on n1, in the mesh as cluster.local/ns/default/sa/client",
        "to    service default/web.default.svc.cluster.local at 10.96.0.1:80, 1 of 1 endpoints ready",
        "",
        "refused  default/far at 10.0.1.1:8080 on n2, over HBONE (mutual TLS)",
        "         connection closed due to policy rejection: allow policies exist, but none allowed "
        "(identity cluster.local/ns/default/sa/client; policies: default/allow)",
        "         ALLOW   default/allow  does not match: rule 1: principals",
        "         DENY    default/trial  dry run, matches: rule 1 has no conditions",
        "",
        "Refused: connection closed due to policy rejection: allow policies exist, but none allowed "
        "(identity cluster.local/ns/default/sa/client; policies: default/allow).",
    ]


def test_endpoints_that_are_not_shown_are_counted() -> None:
    path = Path("", "192.0.2.1:1", "", Way.NOWHERE, False, "nobody")
    text = as_text(Explanation("a", "b", (path,), more=7))
    assert "refused  192.0.2.1:1\n         nobody\nand 7 more endpoints\n" in text


def test_its_values_are_plain() -> None:
    values = json.loads(json.dumps(as_values(found())))
    assert values["allowed"] is False
    assert values["verdict"].startswith("refused: ")
    assert values["paths"][0]["way"] == "HBONE"
    assert values["paths"][0]["tried"][1] == {
        "policy": "default/trial",
        "action": "DENY",
        "scope": "NAMESPACE",
        "matches": True,
        "decides": False,
        "why": "rule 1 has no conditions",
        "dry_run": True,
    }
