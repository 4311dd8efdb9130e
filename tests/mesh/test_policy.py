"""AuthorizationPolicy as manifests write it: across nodes, on one node, from outside; and its changes."""

from __future__ import annotations

import errno
import select
import time
from collections.abc import Callable, Sequence

import pytest

from tests.mesh import lab
from tests.mesh.lab import Load, Mesh, is_refused, read_exactly, wait_until

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

MANIFESTS = (
    lab.NODES
    + lab.namespace("shop")
    + lab.namespace("else")
    + lab.namespace("out", ambient=False)
    + lab.namespace("istio-system", ambient=False)
    + lab.pod("shop/a", "node-1")
    + lab.pod("shop/b", "node-1")
    + lab.pod("else/c", "node-1")
    + lab.pod("out/plain", "node-1")
    + lab.pod("shop/far", "node-2", labels="tier: back")
    + lab.pod("shop/other", "node-2")
    + lab.pod("shop/near", "node-1", labels="tier: back")
    + lab.pod("else/away", "node-2")
)
CALLERS = {"a": "shop/a", "b": "shop/b", "c": "else/c", "p": "out/plain"}

# A part of a rule, and who may: a and b of namespace shop, c of namespace else, p who is not in the mesh.
SOURCES = [
    ("principals: [cluster.local/ns/shop/sa/a]", "a"),
    ("principals: ['*/sa/a', cluster.local/ns/else/sa/c]", "ac"),
    ("principals: ['cluster.local/ns/shop/*']", "ab"),
    ("principals: ['*']", "abc"),
    ("principals: [cluster.local/ns/shop/sa/A]", ""),
    ("notPrincipals: [cluster.local/ns/shop/sa/a]", "bcp"),
    ("notPrincipals: ['*']", "p"),
    ("namespaces: [shop]", "ab"),
    ("namespaces: ['*se', nowhere]", "c"),
    ("notNamespaces: [shop]", "cp"),
    ("serviceAccounts: [b, else/c]", "bc"),
    ("notServiceAccounts: [a]", "bcp"),
    ("ipBlocks: [{a}]", "a"),
    ("ipBlocks: [{a}/31, {p}/32]", "@31"),
    ("ipBlocks: [10.244.0.0/16]", "abcp"),
    ("ipBlocks: [192.0.2.0/24]", ""),
    ("notIpBlocks: [{a}]", "bcp"),
    ("notIpBlocks: [0.0.0.0/0]", ""),
    ("namespaces: [shop], notPrincipals: ['*/sa/b']", "a"),
    ("principals: ['*'], notNamespaces: [shop], ipBlocks: [{c}]", "c"),
]
CONDITIONS = [
    ("[{{key: source.principal, values: ['*/sa/b']}}]", "b"),
    ("[{{key: source.namespace, notValues: [shop]}}]", "cp"),
    ("[{{key: source.ip, values: [{b}, {c}/32]}}]", "bc"),
    ("[{{key: source.serviceAccount, values: [a]}}]", "a"),
    ("[{{key: destination.ip, values: [{far}]}}]", "abcp"),
    ("[{{key: destination.ip, notValues: [{far}]}}]", ""),
    ("[{{key: source.namespace, values: [shop]}}, {{key: source.ip, notValues: [{a}]}}]", "b"),
]
Apply = Callable[[str], None]


def test_every_field_of_a_source_and_every_condition_admits_those_whom_it_names(
    mesh: Mesh, applied: Apply
) -> None:
    """One policy of many rules, each about a port of its own, and a server on each of these ports."""
    known = {name: mesh.address(where) for name, where in [*CALLERS.items(), ("far", "shop/far")]}
    froms = [f"from: [{{source: {{{text.format(**known)}}}}}]" for text, _ in SOURCES]
    rules = froms + [f"when: {text.format(**known)}" for text, _ in CONDITIONS]
    listeners = [mesh.listen("shop/far") for _ in rules]
    texts = [
        f"{{{rule}, to: [{{operation: {{ports: ['{listener.port}']}}}}]}}"
        for rule, listener in zip(rules, listeners, strict=True)
    ]
    applied(lab.policy("shop/many", "ALLOW", f"[{', '.join(texts)}]", "app: far"))
    target = mesh.address("shop/far")
    calls = [
        {name: mesh.call(where, target, listener.port) for name, where in CALLERS.items()}
        for listener in listeners
    ]
    refused = refused_within(0.5, [call for each in calls for call in each.values()])
    found = ["".join(name for name, call in each.items() if call not in refused) for each in calls]
    wanted = [neighbours(mesh) if who == "@31" else who for _, who in SOURCES + CONDITIONS]
    assert dict(zip(rules, found, strict=True)) == dict(zip(rules, wanted, strict=True))


def neighbours(mesh: Mesh) -> str:
    """Who shares 31 bits of the address of a, and p."""
    halved = {name: int(lab.ip_address(mesh.address(where))) >> 1 for name, where in CALLERS.items()}
    return "".join(name for name in CALLERS if name == "p" or halved[name] == halved["a"])


def refused_within(seconds: float, calls: Sequence[lab.Call]) -> list[lab.Call]:
    """Those that failed, or that the other side ended before so long was over; it says nothing otherwise."""
    deadline = time.monotonic() + seconds
    waiting = {call.sock: call for call in calls if call.error is None}
    refused = [call for call in calls if call.error is not None]
    while waiting and (left := deadline - time.monotonic()) > 0:
        for sock in select.select(list(waiting), [], [], left)[0]:
            call = waiting.pop(sock)
            assert is_refused(call.sock)
            refused.append(call)
    return refused


ONLY_A = "[{from: [{source: {principals: [cluster.local/ns/shop/sa/a]}}]}]"
NOT_A = "[{from: [{source: {notPrincipals: [cluster.local/ns/shop/sa/a]}}]}]"


# Policies of one namespace, and who may call the pod with the labels `app: far` and `tier: back` in it.
SCOPES = [
    ([("p", "ALLOW", "[{to: [{operation: {ports: ['8080']}}]}]", "app: far")], "abcp"),
    ([("p", "ALLOW", "[{to: [{operation: {ports: ['8081']}}]}]", "app: far")], ""),
    ([("p", "ALLOW", "[{to: [{operation: {notPorts: ['8080']}}]}]", "app: far")], ""),
    ([("p", "DENY", "[{to: [{operation: {notPorts: ['8081']}}]}]", "app: far")], ""),
    ([("p", "ALLOW", "[]", "")], ""),
    ([("p", "ALLOW", "[{}]", "")], "abcp"),
    ([("p", "ALLOW", ONLY_A, "")], "a"),
    ([("p", "ALLOW", ONLY_A, "tier: back")], "a"),
    ([("p", "ALLOW", ONLY_A, "tier: front")], "abcp"),
    ([("p", "DENY", ONLY_A, ""), ("q", "ALLOW", ONLY_A, "")], ""),
    ([("p", "DENY", NOT_A, ""), ("q", "ALLOW", "[{}]", "app: far")], "a"),
    (
        [
            ("p", "ALLOW", ONLY_A, ""),
            ("q", "ALLOW", "[{from: [{source: {namespaces: [else]}}]}]", "app: far"),
        ],
        "ac",
    ),
    ([("p", "ALLOW", "[{to: [{operation: {methods: [GET]}}]}]", "")], ""),
    ([("p", "DENY", "[{to: [{operation: {methods: [GET], ports: ['8080']}}]}]", "")], ""),
    ([("p", "AUDIT", "[{}]", "")], "abcp"),
]


def answered(mesh: Mesh, where: str) -> str:
    """Which callers the echo server of a pod answers."""
    address = mesh.address(where)
    calls = {name: mesh.call(caller, address, 8080) for name, caller in CALLERS.items()}
    return "".join(name for name, call in calls.items() if call.answers())


def test_scopes_and_actions_of_a_namespaces_policies(mesh: Mesh, applied_first: Apply) -> None:
    """Each case in a namespace of its own."""
    text = ""
    for number, (policies, _) in enumerate(SCOPES):
        text += lab.namespace(f"s{number}") + lab.pod(f"s{number}/far", "node-2", labels="tier: back")
        text += "".join(lab.policy(f"s{number}/{name}", *rest) for name, *rest in policies)
    applied_first(text)
    found = [answered(mesh, f"s{number}/far") for number in range(len(SCOPES))]
    assert dict(enumerate(found)) == {number: who for number, (_, who) in enumerate(SCOPES)}
    assert answered(mesh, "shop/far") == "abcp"


@pytest.mark.parametrize(
    ("policies", "far", "away"),
    [
        (lab.policy("istio-system/p", "ALLOW", ONLY_A), "a", "a"),
        (lab.policy("istio-system/p", "ALLOW", ONLY_A, "tier: back"), "a", "abcp"),
        (lab.policy("istio-system/p", "DENY", NOT_A) + lab.policy("shop/q", "ALLOW", "[]"), "", "a"),
    ],
)
def test_the_root_namespaces_policies_are_everybodys(
    mesh: Mesh, applied_first: Apply, policies: str, far: str, away: str
) -> None:
    applied_first(policies)
    assert (answered(mesh, "shop/far"), answered(mesh, "else/away")) == (far, away)


def test_a_refusal_is_named_in_log_and_metric_at_both_ends(mesh: Mesh, applied: Apply) -> None:
    applied(lab.policy("shop/no-b", "DENY", ONLY_A.replace("sa/a", "sa/b"), "app: far"))
    call = mesh.call("shop/b", mesh.address("shop/far"), 8080)
    assert call.refused
    out = mesh.line("node-1", src_addr=call.own)
    assert (out["level"], out["error"], out["direction"]) == ("error", "http status: 401", "outbound")
    line = mesh.line("node-2", direction="inbound")
    assert line["error"] == "connection closed due to policy rejection: explicitly denied by: shop/no-b"
    assert line["src.identity"] == lab.account("shop/b")
    assert line["dst.workload"] == "far"
    mesh.expect("node-2", 1, "ztunnel_policy_denials_total", policy="shop/no-b", reporter="destination")
    flagged = {"response_flags": "DENY", "source_workload": "b", "destination_workload": "far"}
    mesh.expect("node-2", 1, "istio_tcp_connections_failed_total", reporter="destination", **flagged)
    mesh.expect("node-1", 1, "istio_tcp_connections_failed_total", reporter="source", **flagged)


def test_plaintext_that_is_refused_is_named_too(mesh: Mesh, applied: Apply) -> None:
    applied(lab.policy("shop/only-a", "ALLOW", ONLY_A, "app: far"))
    assert mesh.call("out/plain", mesh.address("shop/far"), 8080).refused
    line = mesh.line("node-2", direction="inbound")
    text = "connection closed due to policy rejection: allow policies exist, but none allowed"
    cause = "no identity: the connection is plaintext; policies: shop/only-a"
    assert line["error"] == f"{text} ({cause})"
    mesh.expect("node-2", 1, "ztunnel_policy_denials_total", policy="none allowed", reporter="destination")
    assert "src.identity" not in line
    labels = {"response_flags": "DENY", "connection_security_policy": "unknown"}
    mesh.expect("node-2", 1, "istio_tcp_connections_failed_total", source_workload="plain", **labels)


def test_on_one_node_the_first_refused_call_and_the_next_ones_are_named(mesh: Mesh, applied: Apply) -> None:
    applied(lab.policy("shop/no-b", "DENY", ONLY_A.replace("sa/a", "sa/b"), "app: near"))
    target = mesh.address("shop/near")
    assert mesh.call("shop/a", target, 8080).answers()
    assert mesh.call("shop/b", target, 8080).refused
    again = mesh.call("shop/b", target, 8080)
    assert again.error is not None
    assert again.error.errno == errno.ECONNREFUSED
    for direction in ("inbound", "outbound"):
        lines = wait_until(
            lambda direction=direction: (
                found
                if len(found := mesh.find_lines("node-1", direction=direction, src_workload="b")) > 1
                else None
            ),
            f"two {direction} lines",
        )
        assert len(lines) == 2, [line["text"] for line in lines]
        assert {line["error"] for line in lines} == {
            "connection closed due to policy rejection: explicitly denied by: shop/no-b"
        }
    for reporter in ("source", "destination"):
        mesh.expect("node-1", 2, "istio_tcp_connections_failed_total", reporter=reporter, source_workload="b")
    mesh.expect("node-1", 2, "ztunnel_policy_denials_total", policy="shop/no-b", reporter="destination")


def open_calls(mesh: Mesh, target: str, callers: str = "abcp") -> dict[str, lab.Call]:
    calls = {name: mesh.call(CALLERS[name], target, 8080) for name in callers}
    assert all(call.answers() for call in calls.values())
    return calls


@pytest.mark.parametrize("where", ["shop/far", "shop/near"])
def test_a_change_ends_the_open_connections_that_it_refuses_and_no_other(
    mesh: Mesh, applied: Apply, where: str
) -> None:
    target, node = mesh.address(where), "node-1" if where == "shop/near" else "node-2"
    first = open_calls(mesh, target)
    second = open_calls(mesh, target)  # on one node the kernel's own: direct
    bystander = mesh.call("shop/b", mesh.address("shop/other"), 8080)
    assert bystander.answers()
    applied(lab.policy("shop/no-b", "DENY", ONLY_A.replace("sa/a", "sa/b"), f"app: {where[5:]}"))
    # The change has been taken over: what is left is for the packets to arrive.
    assert set(map(id, refused_within(0.3, [*first.values(), *second.values()]))) == {
        id(first["b"]),
        id(second["b"]),
    }
    assert all(calls[name].answers() for calls in (first, second) for name in "acp")
    assert bystander.answers()
    lines = wait_until(
        lambda: (
            found if len(found := mesh.find_lines(node, direction="inbound", src_workload="b")) == 2 else None
        ),
        "two ended connections",
    )
    assert {line["error"] for line in lines} == {
        "connection closed due to policy change: explicitly denied by: shop/no-b"
    }
    mesh.expect(node, 2, "ztunnel_policy_denials_total", policy="shop/no-b", reporter="destination")
    labels = {"source_workload": "b", "response_flags": "DENY", "reporter": "destination"}
    mesh.expect(node, 2, "istio_tcp_connections_closed_total", **labels)


def test_a_change_of_labels_that_attaches_a_policy_ends_open_connections(mesh: Mesh, applied: Apply) -> None:
    applied(lab.policy("shop/locked", "ALLOW", ONLY_A, "locked: 'yes'"))
    calls = open_calls(mesh, mesh.address("shop/other"), "ab")
    mesh.label("pod", "shop/other", {"locked": "yes"})
    try:
        assert refused_within(0.3, list(calls.values())) == [calls["b"]]
        assert calls["a"].answers()
    finally:
        mesh.label("pod", "shop/other", {"locked": None})
    assert mesh.call("shop/b", mesh.address("shop/other"), 8080).answers()


def test_what_was_refused_is_admitted_once_the_policy_is_gone(mesh: Mesh) -> None:
    text = lab.policy("shop/nobody", "ALLOW", "[]")
    mesh.apply(text)
    targets = [mesh.address(where) for where in ("shop/near", "shop/far")]
    assert not any(mesh.call("shop/a", target, 8080).answers() for target in targets * 2)
    mesh.apply(text, delete=True)
    assert all(mesh.call("shop/a", target, 8080).answers() for target in targets * 2)


def test_policies_that_come_and_go_under_load_refuse_exactly_whom_they_name(mesh: Mesh) -> None:
    text = lab.policy("shop/no-b", "DENY", ONLY_A.replace("sa/a", "sa/b"))
    pairs = [(caller, to) for caller in ("shop/a", "shop/b") for to in ("shop/near", "shop/far")]
    refusing: list[tuple[float, float]] = []
    with Load(mesh, [*pairs, ("out/plain", "shop/near")]) as load:
        for _ in range(2):
            mesh.apply(text)
            begun, wanted = time.monotonic(), len(load.tried) + 100
            wait_until(lambda wanted=wanted: len(load.tried) > wanted, "calls in between")
            refusing.append((begun, time.monotonic()))
            mesh.apply(text, delete=True)
    assert [each for each in load.failed() if each.where != "shop/b"] == []
    within = [
        each
        for each in load.tried
        if each.where == "shop/b" and any(a < each.begun and each.ended < b for a, b in refusing)
    ]
    assert len(within) > 20
    assert [each for each in within if each.answered] == []


@pytest.mark.parametrize("where", ["shop/far", "shop/near"])
def test_a_policy_under_trial_refuses_nobody_and_says_whom_it_would(
    mesh: Mesh, applied: Apply, where: str
) -> None:
    target, node = mesh.address(where), "node-1" if where == "shop/near" else "node-2"
    trial = lab.policy("shop/trial", "DENY", ONLY_A.replace("sa/a", "sa/b"), f"app: {where[5:]}")
    applied(trial.replace("name: trial,", "name: trial, annotations: {istio.io/dry-run: 'true'},"))
    for _ in range(3):
        assert all(mesh.call(CALLERS[name], target, 8080).answers() for name in "abcp")
    count = "ztunnel_policy_dry_run_total"
    mesh.expect(node, 3, count, policy="shop/trial", result="denied")
    mesh.expect(node, 9, count, policy="shop/trial", result="allowed")
    lines = wait_until(
        lambda: [one for one in mesh.lines(node) if one["message"] == "dry-run: connection would be refused"],
        "a line",
    )
    assert len(lines) == 1
    assert (lines[0]["policy"], lines[0]["why"]) == ("shop/trial", "rule 1 matches")
    assert (lines[0]["src"], lines[0]["dst"]) == (lab.account("shop/b"), where)
    assert mesh.figures(node).total("ztunnel_policy_denials_total", policy="shop/trial") == 0


@pytest.mark.parametrize(
    ("rules", "far"),
    [
        ("[{to: [{operation: {methods: [DELETE]}}]}]", ""),
        ("[{to: [{operation: {methods: [DELETE], ports: ['8081']}}]}]", "abcp"),
        (ONLY_A.replace("}]}]", "}], to: [{operation: {paths: [/admin]}}]}]"), "bcp"),
        ("[{when: [{key: 'request.headers[x]', values: [a]}]}]", ""),
    ],
)
def test_a_deny_that_only_http_can_tell_in_full_denies_by_the_rest(
    mesh: Mesh, applied_first: Apply, rules: str, far: str
) -> None:
    applied_first(lab.policy("shop/http", "DENY", rules, "app: far"))
    assert answered(mesh, "shop/far") == far
    wait_until(
        lambda: any(
            "AuthorizationPolicy shop/http: node proxies do not support HTTP attributes" in one["text"]
            for one in mesh.lines("node-2")
        ),
        "a warning",
    )


def test_data_in_flight_is_whole_up_to_a_refusal(mesh: Mesh) -> None:
    call = mesh.call("shop/a", mesh.address("shop/far"), 8080)
    call.sock.sendall(b"z" * 500_000)
    assert read_exactly(call.sock, 500_000) == b"z" * 500_000


def test_nothing_unexpected_was_logged(mesh: Mesh) -> None:
    for node in ("node-1", "node-2"):
        assert "Traceback" not in mesh.laboratory.node_log(node)
        assert mesh.figures(node).total("ztunnel_internal_errors_total") == 0
