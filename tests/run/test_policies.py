"""What passes a waypoint is judged again when policies change; what decides nothing is counted."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.builders import world_of
from tests.hbone.conftest import contexts, lab
from tests.hbone.peers import Lab
from tests.run.parts import SETTINGS
from tests.waypoint.mesh import CALLER, ME, SERVERS, SERVICE, Mesh
from ztunnel.l7.policy.rule import Decision, Tried
from ztunnel.model.http_policy import HttpAction, HttpPolicy
from ztunnel.run.policies import follow_policies
from ztunnel.run.reporting import Reporting
from ztunnel.state.delta import apply

__all__ = ["contexts", "lab"]
GET = b"GET /x HTTP/1.1\r\nHost: web\r\n\r\n"
POLICY = HttpPolicy("p", "shop", HttpAction.DENY, ((),))


@pytest.mark.parametrize("items", [(replace(SERVICE, guards=("shop/p",)),), (POLICY,)])
def test_a_change_ends_what_is_under_way_in_the_next_round(lab: Lab, items: tuple) -> None:
    guarded = replace(SERVICE, guards=("shop/p",))
    before = (guarded, replace(POLICY, rules=())) if items == (POLICY,) else (SERVICE, POLICY)
    mesh = Mesh(lab, ME, CALLER, *SERVERS, *before)
    follow_policies(mesh.parts, Reporting(SETTINGS))
    client, heard = mesh.open("10.1.0.1:80")
    client.write(GET)
    mesh.serve()
    mesh.hold.publish(*apply(mesh.hold.world, items))
    lab.go(until=lambda: b"denied" in heard.got)


def test_what_concerns_no_policy_looks_at_nothing(lab: Lab) -> None:
    mesh = Mesh(lab)
    follow_policies(mesh.parts, Reporting(SETTINGS))
    looked: list[int] = []
    mesh.parts.engine.post = looked.append  # type: ignore[method-assign,assignment]
    world, change = apply(mesh.hold.world, [replace(SERVERS[0], healthy=False, services={})])
    mesh.hold.publish(world, replace(change, services=frozenset()))
    assert not looked
    mesh.hold.publish(world_of(), change)
    assert looked == [mesh.parts.rejudge]


def test_trials_and_audits_are_counted(lab: Lab) -> None:
    mesh, reporting = Mesh(lab), Reporting(SETTINGS)
    follow_policies(mesh.parts, reporting)
    trial = Tried("shop/p", True, HttpAction.DENY, "ns[shop]-policy[p]-rule[0]")
    decision = Decision(True, tried=(trial,), audited=("shop/q", "shop/r"))
    assert mesh.parts.note is not None
    mesh.parts.note(decision, "who", "what")
    found = {family.name: dict(family.samples) for family in reporting.figures.families()}
    assert found["ztunnel_policy_dry_run_total"] == {("shop/p", "denied"): 1}
    assert found["ztunnel_policy_audits_total"] == {("shop/q",): 1, ("shop/r",): 1}


def test_tokens_are_counted(lab: Lab) -> None:
    mesh, reporting = Mesh(lab), Reporting(SETTINGS)
    follow_policies(mesh.parts, reporting)
    authenticator = mesh.parts.authenticator
    assert authenticator.refused is not None
    authenticator.refused("Jwt is expired")
    authenticator.proofs.remembered = 3
    authenticator.turned_away = 2
    found = {family.name: dict(family.samples) for family in reporting.figures.families()}
    assert found["ztunnel_waypoint_tokens_refused_total"] == {("Jwt is expired",): 1}
    assert found["ztunnel_waypoint_signatures_total"] == {("proved",): 0, ("refuted",): 0, ("remembered",): 3}
    assert found["ztunnel_waypoint_tokens_turned_away_total"] == {(): 2}
    assert found["ztunnel_waypoint_tokens"] == found["ztunnel_waypoint_tokens_waiting"] == {(): 0}
