"""AuthorizationPolicies as waypoints enforce them; every field is in golden/http_authorization.in.yaml."""

import pytest

from tests.control.test_translation import NAMESPACE, documents, translated
from ztunnel.control.settings import MeshSettings
from ztunnel.model.http_policy import Attribute, HttpAction, HttpPolicy, Term, TextKind, TextMatch
from ztunnel.xds.resource import HTTP_POLICY


def policy(spec, targets="targetRefs: [{kind: Service, group: '', name: web}]"):
    return documents(
        NAMESPACE,
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: shop}\n"
        f"spec: {{{targets}, {spec}}}\n",
    )


def converted(spec, settings=None):
    return translated(policy(spec), settings or MeshSettings()).http[HTTP_POLICY]["shop/p"]


def values(source, settings=None):
    ((((term,),),),) = converted(f"rules: [{{from: [{{source: {{{source}}}}}]}}]", settings).rules
    return term


def test_policies_without_targets_are_not_for_waypoints():
    found = translated(policy("rules: [{}]", "selector: {matchLabels: {a: b}}"))
    assert found.http.get(HTTP_POLICY, {}) == {}


def test_rules_without_anything_stay_what_they_are():
    assert converted("action: ALLOW") == HttpPolicy("p", "shop", HttpAction.ALLOW)
    assert converted("rules: [{}]").rules == ((),)


@pytest.mark.parametrize("written", ["cluster.local/ns/a/sa/b", "old/ns/a/sa/b", "new/ns/a/sa/b"])
def test_a_principal_is_one_of_each_alias_of_its_trust_domain(written):
    settings = MeshSettings(trust_domain="new", trust_domain_aliases=("old",))
    term = values(f"principals: ['{written}']", settings)
    exact = [TextMatch(TextKind.EXACT, f"{each}/ns/a/sa/b") for each in ("new", "old")]
    assert term == Term(Attribute.PRINCIPAL, tuple(exact))


def test_a_service_account_is_of_the_policys_namespace_where_none_is_given():
    term = values("serviceAccounts: [a, other/b]")
    assert [one.text for one in term.values] == ["shop/a", "other/b"]


def test_a_header_is_named_in_lower_case_and_a_claim_by_its_path():
    when = "[{key: 'request.headers[X-A]', values: [v]}, {key: 'request.auth.claims[a][b.c]', values: [v]}]"
    (rule,) = converted(f"rules: [{{when: {when}}}]").rules
    assert [term.argument for clause in rule for match in clause for term in match] == [
        ("x-a",),
        ("a", "b.c"),
    ]


def test_what_is_said_of_custom_and_of_envoys_own_attributes():
    texts = "\n".join(translated(policy("action: CUSTOM, provider: {name: x}, rules: [{}]")).warnings)
    assert "there is no provider 'x' in the mesh config (authorizers: none): what the policy matches" in texts
    when = "rules: [{when: [{key: 'experimental.envoy.filters.a[b]', values: [v]}]}]"
    assert "omitted, which allows less" in "\n".join(translated(policy(when)).warnings)
    assert converted(when).rules == ()
    assert converted(f"action: DENY, {when}").rules == ((),)
