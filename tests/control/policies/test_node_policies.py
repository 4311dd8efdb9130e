"""Policies of node proxies follow their objects, and what selects by labels says by which."""

from ztunnel.control.delta import Delta
from ztunnel.control.policies.node_policies import NodePolicies
from ztunnel.control.policies.peer_authentication import STATIC_STRICT
from ztunnel.control.settings import MeshSettings
from ztunnel.control.source.document import key_of
from ztunnel.state.istio import AuthorizationPolicy, Mode, PeerAuthentication, PolicyRule
from ztunnel.state.meta import Meta

ANY = (PolicyRule((), (), ()),)


def policy(namespace="shop", selector=None, action="ALLOW", rules=ANY):
    return AuthorizationPolicy(Meta("p", namespace, {}, {}), action, selector or {}, (), rules)


def peer(mode, name="default", namespace="istio-system"):
    return PeerAuthentication(Meta(name, namespace, {}, {}), {}, mode, {})


def test_a_policy_says_by_which_labels_it_selects_and_has_selected():
    them, delta = NodePolicies(MeshSettings()), Delta()
    key = key_of(policy())
    assert them.put(key, policy(selector={"app": "a"}), delta) == ((), None, {"app": "a"})
    assert [selector for _, selector in them.selecting("shop")] == [{"app": "a"}]
    assert list(them.selecting("other")) == []
    assert them.put(key, policy(), delta) == ((), {"app": "a"}, None)
    assert list(them.selecting("shop")) == []
    assert list(them.in_force) == list(delta.policies) == ["shop/p"]
    assert them.put(key, None, delta) == ((), None, None)
    assert (them.in_force, delta.policies) == ({}, {"shop/p": None})


def test_those_of_the_root_namespace_select_in_every_namespace():
    them = NodePolicies(MeshSettings())
    root = policy("istio-system", {"app": "a"})
    them.put(key_of(root), root, Delta())
    assert [one.key for one, _ in them.selecting("shop")] == ["istio-system/p"]
    assert len(list(them.selecting("istio-system"))) == 1


def test_what_comes_out_equal_is_no_change_and_what_cannot_be_enforced_is_said():
    them, delta = NodePolicies(MeshSettings()), Delta()
    them.put(key_of(policy()), policy(), Delta())
    them.put(key_of(policy()), policy(), delta)
    assert delta.policies == {}
    remarks = them.put(key_of(policy()), policy(action="AUDIT"), delta).remarks
    assert remarks == ("AuthorizationPolicy shop/p: node proxies do not support the AUDIT action",)
    assert delta.policies == {"shop/p": None}


def test_peer_authentications_come_into_force_together():
    them, delta = NodePolicies(MeshSettings()), Delta()
    them.put_peer(key_of(peer(Mode.STRICT)), peer(Mode.STRICT))
    assert them.in_force == {}
    before = them.convert_peers(delta)
    assert before.of("shop") != them.modes.of("shop")
    assert list(delta.policies) == list(them.in_force) == [f"istio-system/{STATIC_STRICT}"]
    second = peer(Mode.PERMISSIVE, "second")
    them.put_peer(key_of(second), second)
    them.convert_peers(delta)
    assert len(them.remarks) == 1
    for one in (peer(Mode.STRICT), second):
        them.put_peer(key_of(one), None)
    them.convert_peers(delta)
    assert (them.in_force, them.remarks) == ({}, ())
