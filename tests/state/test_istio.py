"""Istio's policies are read strictly: every wrong thing is found, at its field."""

from ipaddress import IPv4Network, IPv6Network

import pytest

from ztunnel.state.istio import (
    Condition,
    Mode,
    parse_block,
    read_authorization_policy,
    read_peer_authentication,
)
from ztunnel.state.manifest import Notes, compose


def read(reader, spec):
    notes = Notes()
    found = reader(compose(f"metadata: {{name: a}}\nspec: {spec}\n", notes))
    return found, [fault.field for fault in notes.faults]


def test_a_policy_is_read():
    policy, faults = read(
        read_authorization_policy,
        """
  action: DENY
  selector: {matchLabels: {app: web}}
  rules:
  - from: [{source: {principals: [a, b], notNamespaces: [c], ipBlocks: []}}]
    to: [{operation: {ports: ["80"]}}, {operation: {methods: [GET]}}]
    when: [{key: source.ip, values: [10.0.0.0/8]}]
  - {}
""",
    )
    assert faults == []
    assert (policy.action, policy.selector, policy.targets) == ("DENY", {"app": "web"}, ())
    first, second = policy.rules
    assert first.sources == ({"principals": ("a", "b"), "notNamespaces": ("c",)},)
    assert first.operations == ({"ports": ("80",)}, {"methods": ("GET",)})
    assert first.conditions == (Condition("source.ip", ("10.0.0.0/8",), ()),)
    assert (second.sources, second.operations, second.conditions) == ((), (), ())


def test_no_spec_and_an_empty_one_are_the_same():
    notes = Notes()
    bare = read_authorization_policy(compose("metadata: {name: a}", notes))
    assert bare == read(read_authorization_policy, "{}")[0]
    assert (bare.action, bare.rules, notes.faults) == ("ALLOW", (), [])


def source(fields):
    return f"{{rules: [{{from: [{{source: {fields}}}]}}]}}"


def operation(fields):
    return f"{{rules: [{{to: [{{operation: {fields}}}]}}]}}"


def when(fields):
    return f"{{rules: [{{when: [{fields}]}}]}}"


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ("{rule: []}", "spec.rule"),
        ("{rules: {}}", "spec.rules"),
        ("{rules: [~]}", "spec.rules[0]"),
        ("{action: Deny}", "spec.action"),
        ("{action: DENY}", "spec"),
        ("{action: ALLOW, provider: {name: x}}", "spec.provider"),
        ("{action: CUSTOM, provider: {nam: x}, rules: [{}]}", "spec.provider.nam"),
        ("{selector: {app: web}}", "spec.selector.app"),
        ("{selector: {matchLabels: [app]}}", "spec.selector.matchLabels"),
        ("{selector: {matchLabels: {app: '*'}}}", "spec.selector.matchLabels.app"),
        ("{selector: {matchLabels: {'a*': b}}}", "spec.selector.matchLabels[a*]"),
        ("{selector: {matchLabels: {}}, targetRefs: [{kind: Service, name: a}]}", "spec"),
        ("{targetRefs: [{kind: Service}]}", "spec.targetRefs[0]"),
        ("{targetRef: {kind: Service, name: a, nmae: b}}", "spec.targetRef.nmae"),
        ("{rules: [{form: []}]}", "spec.rules[0].form"),
        ("{rules: [{from: []}]}", "spec.rules[0].from"),
        ("{rules: [{from: [{}]}]}", "spec.rules[0].from[0]"),
        ("{rules: [{from: [{principals: [a]}]}]}", "spec.rules[0].from[0].principals"),
        (source("{}"), "spec.rules[0].from[0].source"),
        (source("{principal: [a]}"), "spec.rules[0].from[0].source.principal"),
        (source("{principals: a}"), "spec.rules[0].from[0].source.principals"),
        (source("{principals: ['']}"), "spec.rules[0].from[0].source.principals[0]"),
        (source("{principals: [1]}"), "spec.rules[0].from[0].source.principals[0]"),
        (source("{ipBlocks: [10.0.0.0/8, 10.0.0.0/33]}"), "spec.rules[0].from[0].source.ipBlocks[1]"),
        (source("{notIpBlocks: [localhost]}"), "spec.rules[0].from[0].source.notIpBlocks[0]"),
        (source("{remoteIpBlocks: [x]}"), "spec.rules[0].from[0].source.remoteIpBlocks[0]"),
        (source("{serviceAccounts: ['*']}"), "spec.rules[0].from[0].source.serviceAccounts[0]"),
        (source("{serviceAccounts: [a/b/c]}"), "spec.rules[0].from[0].source.serviceAccounts[0]"),
        (source("{serviceAccounts: [a], namespaces: [b]}"), "spec.rules[0].from[0].source"),
        (operation("{ports: [80]}"), "spec.rules[0].to[0].operation.ports[0]"),
        (operation("{ports: [http]}"), "spec.rules[0].to[0].operation.ports[0]"),
        (operation("{notPorts: ['65536']}"), "spec.rules[0].to[0].operation.notPorts[0]"),
        (operation("{path: [/]}"), "spec.rules[0].to[0].operation.path"),
        (when("{}"), "spec.rules[0].when[0]"),
        (when("{key: source.ip}"), "spec.rules[0].when[0]"),
        (when("{key: source.port, values: ['1']}"), "spec.rules[0].when[0]"),
        (when("{key: 'request.headers[]', values: [a]}"), "spec.rules[0].when[0]"),
        (when("{key: source.ip, values: [x]}"), "spec.rules[0].when[0].values[0]"),
        (when("{key: destination.port, notValues: ['0']}"), "spec.rules[0].when[0].notValues[0]"),
        (when("{key: source.namespace, value: [a]}"), "spec.rules[0].when[0].value"),
    ],
)
def test_what_is_wrong_in_a_policy_is_found(spec, field):
    assert field in read(read_authorization_policy, spec)[1]


def test_a_policy_of_very_many_rules_is_a_fault():
    assert read(read_authorization_policy, f"{{rules: [{'{}, ' * 513}]}}")[1] == ["spec"]


@pytest.mark.parametrize(
    "key",
    [
        "source.ip",
        "source.trustDomain",
        "remote.ip",
        "request.auth.claims[a][b]",
        "request.headers[x]",
        "connection.sni",
        "destination.ip",
        "experimental.envoy.filters.network.mysql_proxy[a]",
    ],
)
def test_every_key_of_istio_is_known(key):
    assert read(read_authorization_policy, when(f"{{key: '{key}', values: ['10.0.0.1']}}"))[1] == []


def test_a_peer_authentication_is_read():
    found, faults = read(
        read_peer_authentication,
        "{selector: {matchLabels: {app: a}}, mtls: {mode: STRICT},"
        " portLevelMtls: {80: {mode: DISABLE}, '81': {}}}",
    )
    assert faults == []
    assert (found.mode, found.selector) == (Mode.STRICT, {"app": "a"})
    assert found.ports == {80: Mode.DISABLE, 81: Mode.UNSET}


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ("{mtls: STRICT}", "spec.mtls"),
        ("{mtls: {mode: strict}}", "spec.mtls.mode"),
        ("{mtls: {mod: STRICT}}", "spec.mtls.mod"),
        ("{mode: STRICT}", "spec.mode"),
        ("{portLevelMtls: {80: {mode: STRICT}}}", "spec.portLevelMtls"),
        ("{selector: {matchLabels: {a: b}}, portLevelMtls: {http: {}}}", "spec.portLevelMtls.http"),
        ("{selector: {matchLabels: {a: b}}, portLevelMtls: {0: {}}}", "spec.portLevelMtls.0"),
        ("{selector: {labels: {a: b}}}", "spec.selector.labels"),
    ],
)
def test_what_is_wrong_in_a_peer_authentication_is_found(spec, field):
    assert field in read(read_peer_authentication, spec)[1]


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("10.1.2.3", IPv4Network("10.1.2.3/32")),
        ("10.1.2.3/8", IPv4Network("10.0.0.0/8")),
        ("fd00::1/8", IPv6Network("fd00::/8")),
        ("::ffff:10.1.2.3/104", IPv4Network("10.0.0.0/8")),
        ("::/0", IPv6Network("::/0")),
    ],
)
def test_blocks_are_addresses_or_ranges(text, network):
    assert parse_block(text) == network


@pytest.mark.parametrize(
    "text", ["", "10.0.0.0/255.0.0.0", "10.0.0.1/", "a/8", "fe80::1%eth0", "10.0.0.0/-1"]
)
def test_other_blocks_are_refused(text):
    with pytest.raises(ValueError, match=r".*"):
        parse_block(text)


@pytest.mark.parametrize(
    ("path", "good"),
    [
        ("/a", True),
        ("/a*", True),
        ("*/a", True),
        ("*", True),
        ("/{*}", True),
        ("/{**}", True),
        ("/a/{*}/b/{**}", True),
        ("/a/{**}/b/", True),
        ("/{**}/{*}", False),
        ("/{**}/{**}", False),
        ("/{*}.txt", False),
        ("/a{**}", False),
        ("/{*}/b*", False),
        ("/*/b/{*}", False),
        ("/{id}", False),
        ("/a}", False),
        ("", False),
    ],
)
def test_templates_of_paths_are_those_that_istio_takes(path, good):
    for name in ("paths", "notPaths"):
        _, faults = read(
            read_authorization_policy, f"{{rules: [{{to: [{{operation: {{{name}: ['{path}']}}}}]}}]}}"
        )
        assert (faults == []) is good
