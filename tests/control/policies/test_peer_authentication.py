"""For every combination of modes a workload is under STRICT exactly where the API's inheritance says so."""

from itertools import product

import pytest

from ztunnel.control.policies.peer_authentication import STATIC_STRICT, convert_peer_authentications
from ztunnel.control.settings import MeshSettings
from ztunnel.state.istio import Mode, PeerAuthentication
from ztunnel.state.meta import Meta

LABELS = {"app": "web"}
PORT, OTHER = 80, 81


def authentication(namespace, mode, *, name="default", selector=None, ports=None, created=""):
    return PeerAuthentication(Meta(name, namespace, {}, {}, created), selector or {}, mode, ports or {})


def refuses_plaintext(modes, policies, namespace, port):
    """Whether a policy that the workload lists denies a connection without identity on the port."""
    known = {policy.key: policy for policy in policies}
    for key in modes.keys_for(namespace, LABELS):
        for rule in known[key].rules:
            if all(
                any(
                    (not match.destination_ports or port in match.destination_ports)
                    and port not in match.not_destination_ports
                    for match in clause
                )
                for clause in rule
            ):
                return True
    return False


@pytest.mark.parametrize(("root", "namespace", "workload", "port"), list(product([None, *Mode], repeat=4)))
def test_the_nearest_mode_that_is_set_decides(root, namespace, workload, port):
    given = []
    if root is not None:
        given.append(authentication("istio-system", root))
    if namespace is not None:
        given.append(authentication("shop", namespace))
    if workload is not None:
        ports = {PORT: port} if port is not None else {}
        given.append(authentication("shop", workload, name="web", selector=LABELS, ports=ports))
    modes, policies, warnings = convert_peer_authentications(given, MeshSettings())
    ladder = [root, namespace, workload]
    expected = [mode for mode in ladder if mode not in (None, Mode.UNSET)]
    at_port = [*expected, port] if workload is not None and port not in (None, Mode.UNSET) else expected
    assert refuses_plaintext(modes, policies, "shop", OTHER) is (expected[-1:] == [Mode.STRICT])
    assert refuses_plaintext(modes, policies, "shop", PORT) is (at_port[-1:] == [Mode.STRICT])
    assert warnings == ()


def test_without_any_there_are_no_policies():
    modes, policies, _ = convert_peer_authentications([], MeshSettings())
    assert (policies, modes.keys_for("shop", LABELS)) == ((), ())


def test_the_static_policy_stands_in_the_root_namespace():
    given = [authentication("mesh", Mode.STRICT)]
    modes, policies, _ = convert_peer_authentications(given, MeshSettings(root_namespace="mesh"))
    assert [policy.key for policy in policies] == [f"mesh/{STATIC_STRICT}"]
    assert modes.keys_for("shop", LABELS) == modes.keys_for("mesh", {}) == (f"mesh/{STATIC_STRICT}",)


def test_of_several_that_select_a_workload_the_oldest_counts():
    given = [
        authentication("shop", Mode.STRICT, name="new", selector=LABELS, created="2026-01-02T00:00:00Z"),
        authentication("shop", Mode.PERMISSIVE, name="old", selector=LABELS, created="2026-01-01T00:00:00Z"),
    ]
    modes, _, _ = convert_peer_authentications(given, MeshSettings())
    assert modes.keys_for("shop", LABELS) == ()
    assert modes.keys_for("shop", {}) == ()


def test_a_selector_reaches_only_its_own_namespace():
    given = [authentication("shop", Mode.STRICT, name="web", selector=LABELS)]
    modes, _, _ = convert_peer_authentications(given, MeshSettings())
    assert modes.keys_for("other", LABELS) == ()
