"""The policies of a service, of all kinds, are told apart."""

from __future__ import annotations

from tests.control.policies.test_guard import ALL, ENTRY, policy
from tests.control.policies.test_jwt_policies import authentication
from tests.control.policies.test_rate_limits import Mesh, limits
from ztunnel.control.source.document import Key
from ztunnel.model.service import Service

WEB = "{kind: Service, name: web}"
OUT = "{kind: ServiceEntry, name: out}"


def test_each_kind_is_named_by_itself() -> None:
    mesh = Mesh()
    for target, host in ((WEB, "web.shop.svc.cluster.local"), (OUT, "out.example")):
        mesh.write(ALL + policy(target) + authentication(target) + limits(target))
        found = [one for one in mesh.translator.addresses.values() if getattr(one, "guards", ())]
        (one,) = [each for each in found if isinstance(each, Service) and each.hostname == host]
        assert one.guards == one.jwt_policies == one.rate_limits == ("shop/p",)
    assert ENTRY in ALL


def test_a_rate_limit_is_no_reason_to_refuse_what_has_no_waypoint_yet() -> None:
    mesh = Mesh()
    key = Key("Service", "shop", "web")
    mesh.write(ALL + limits(WEB))
    assert not mesh.translator._at_waypoints.decide(key, {})
    mesh.write(ALL + authentication(WEB))
    assert mesh.translator._at_waypoints.decide(key, {})
    mesh.write(ALL + policy(WEB))
    assert mesh.translator._at_waypoints.decide(key, {})


def test_only_policies_have_targets() -> None:
    mesh = Mesh()
    mesh.write(ALL + limits(WEB))
    said = {
        kind: mesh.translator.said(Key(kind, "shop", "p")).targets for kind in ("RateLimitPolicy", "Service")
    }
    assert len(said["RateLimitPolicy"]) == 1
    assert said["Service"] == ()
