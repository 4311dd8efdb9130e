"""A CUSTOM policy without an authorizer to ask is told why; any other has nothing to tell."""

import pytest

from ztunnel.control.policies.custom_action import CustomPolicies
from ztunnel.control.source.document import Key
from ztunnel.model.http_policy import HttpAction, HttpPolicy
from ztunnel.model.provider import (
    ExtAuthz,
    ExtensionProvider,
    Prometheus,
    ServicePort,
    Speech,
    Unsupported,
)

KEY = Key("AuthorizationPolicy", "shop", "p")
ASKS = ExtensionProvider("a", ExtAuthz(Speech.HTTP, ServicePort("a.b", 80)))


def policy(action=HttpAction.CUSTOM, provider="a"):
    return HttpPolicy("p", "shop", action, ((),), provider=provider)


@pytest.mark.parametrize(
    ("one", "provider", "problem"),
    [
        (policy(), ASKS, ""),
        (policy(HttpAction.DENY), None, ""),
        (policy(), None, "there is no provider 'a' in the mesh config (authorizers: none)"),
        (policy(provider="b"), ASKS, "there is no provider 'b' in the mesh config (authorizers: a)"),
        (policy(), ExtensionProvider("a", Prometheus()), "the provider 'a' is no authorizer: Prometheus"),
        (policy(), ExtensionProvider("a", Unsupported("sds")), "the provider 'a' is no authorizer: sds"),
    ],
)
def test_what_keeps_a_provider_from_being_asked_is_said(one, provider, problem):
    them = CustomPolicies({provider.name: provider} if provider else {})
    them.put(KEY, one)
    expected = f"{problem}: what the policy matches is refused" if problem else ""
    assert them.problem(KEY) == expected
    assert them.texts() == ([f"{KEY}: {expected}"] if problem else [])
    them.put(KEY, None)
    assert (them.problem(KEY), them.texts()) == ("", [])


def test_providers_that_change_concern_the_policies_that_name_them():
    them = CustomPolicies()
    them.put(KEY, policy())
    assert them.provide({"b": ASKS}) == frozenset()
    assert them.provide({"a": ASKS}) == {KEY}
    assert them.provide({"a": ASKS}) == frozenset()
    assert them.provide({}) == {KEY}
