"""What the golden pairs (test_translation.py) do not show of an AuthorizationPolicy's conversion."""

import pytest

from ztunnel.control.policies.authorization import convert_authorization
from ztunnel.control.settings import MeshSettings
from ztunnel.model.policy import Match, MatchKind, PolicyScope, StringMatch
from ztunnel.state.istio import AuthorizationPolicy, read_authorization_policy
from ztunnel.state.manifest import Notes, compose


def convert(metadata, spec, settings=None):
    notes = Notes()
    found = read_authorization_policy(compose(f"metadata: {metadata}\nspec: {spec}\n", notes))
    assert notes.faults == []
    assert isinstance(found, AuthorizationPolicy)
    return convert_authorization(found, settings or MeshSettings())


@pytest.mark.parametrize(
    ("value", "dry_run", "warned"),
    [
        ("true", True, False),
        ("1", True, False),
        ("false", False, False),
        ("", False, False),
        ("yes", False, True),
    ],
)
def test_a_dry_run_is_asked_for_as_go_writes_booleans(value, dry_run, warned):
    policy, warnings = convert(f"{{name: a, annotations: {{istio.io/dry-run: '{value}'}}}}", "{rules: [{}]}")
    assert (policy.dry_run, bool(warnings)) == (dry_run, warned)


def test_the_root_namespace_is_a_setting():
    policy, _ = convert("{name: a, namespace: mesh}", "{}", MeshSettings(root_namespace="mesh"))
    assert policy.scope is PolicyScope.GLOBAL
    policy, _ = convert("{name: a, namespace: istio-system}", "{}", MeshSettings(root_namespace="mesh"))
    assert policy.scope is PolicyScope.NAMESPACE


def test_an_allow_policy_that_loses_every_rule_denies_everything():
    policy, warnings = convert("{name: a}", "{rules: [{to: [{operation: {hosts: [a]}}]}]}")
    assert policy.rules == ()
    assert "found: hosts" in warnings[0]


@pytest.mark.parametrize(
    ("rules", "denies"),
    [
        ("[{to: [{operation: {hosts: [a]}}]}]", ((),)),
        ("[{to: [{operation: {notPaths: [/a]}}]}]", ((),)),
        ("[{when: [{key: connection.sni, values: [a]}]}]", ((),)),
        ("[{from: [{source: {requestPrincipals: ['*']}}], to: [{operation: {methods: [GET]}}]}]", ((),)),
        (
            "[{to: [{operation: {methods: [GET], ports: ['80']}}]}]",
            (((Match(destination_ports=(80,)),),),),
        ),
        (
            "[{from: [{source: {namespaces: [a]}}],"
            " to: [{operation: {ports: ['80']}}, {operation: {hosts: [a]}}]}]",
            (((Match(namespaces=(StringMatch(MatchKind.EXACT, "a"),)),),),),
        ),
    ],
)
def test_a_deny_with_http_denies_by_the_rest_and_everything_where_nothing_is_left(rules, denies):
    policy, (warning,) = convert("{name: a}", f"{{action: DENY, rules: {rules}}}")
    assert policy.rules == denies
    assert ("it denies every connection" in warning) == (denies == ((),))
    allowing, _ = convert("{name: a}", f"{{rules: {rules}}}")
    assert allowing.rules == ()


def test_principals_mean_the_own_trust_domain_wherever_they_stand():
    rules = """[{
        from: [{source: {principals: [cluster.local/ns/a/sa/a], notPrincipals: [cluster.local/ns/a/sa/b]}}],
        when: [{key: source.principal, values: [cluster.local/ns/a/sa/c], notValues: ['cluster.local/*']}],
    }]"""
    policy, warnings = convert("{name: a}", f"{{rules: {rules}}}", MeshSettings(trust_domain="prod.example"))
    (((source,), (condition,)),) = policy.rules
    assert [one.text for one in source.principals + source.not_principals] == [
        "prod.example/ns/a/sa/a",
        "prod.example/ns/a/sa/b",
    ]
    assert [one.text for one in condition.principals + condition.not_principals] == [
        "prod.example/ns/a/sa/c",
        "prod.example/",
    ]
    assert warnings == ()


def test_a_principal_of_a_trust_domain_of_others_is_warned_about():
    rules = "[{from: [{source: {principals: [elsewhere/ns/a/sa/a]}}]}]"
    _, (warning,) = convert("{name: a}", f"{{rules: {rules}}}", MeshSettings(trust_domain="prod.example"))
    assert "'elsewhere/ns/a/sa/a' matches nobody: elsewhere is not the trust domain of the mesh" in warning
