"""What the golden pairs (test_translation.py) do not show of an AuthorizationPolicy's conversion."""

import pytest

from ztunnel.control.authorization import convert_authorization
from ztunnel.control.settings import MeshSettings
from ztunnel.model.policy import PolicyScope
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
