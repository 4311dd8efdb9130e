"""Whose an object is, by what it says of its owner and of who has made it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.control.waypoints.test_deployment import gateway
from ztunnel.control.waypoints.deployment import MANAGED_BY_US
from ztunnel.control.waypoints.owner import has_our_number, is_istiods, is_made, is_owned, mark_of
from ztunnel.control.waypoints.waypoint import GATEWAY_NAME, MANAGED


def thing(labels: dict[str, str] | None = None, *owners: dict[str, str], **more: Any) -> dict[str, Any]:
    return {"metadata": {"labels": labels, "ownerReferences": list(owners) or None}, **more}


def made_labels() -> dict[str, str]:
    """Those of what is made for the Gateway."""
    return {MANAGED: MANAGED_BY_US, GATEWAY_NAME: gateway().meta.name}


@pytest.mark.parametrize(
    ("value", "owned"),
    [
        (thing(), False),
        (thing({"a": "b"}), False),
        (thing(made_labels()), True),
        (thing(None, {"kind": "Gateway", "uid": gateway().meta.uid}), True),
        (thing(None, {"kind": "Gateway", "uid": "another"}), False),
        (thing(made_labels(), {"kind": "Gateway", "uid": "another"}), False),
        (thing(None, {"kind": "Service", "uid": gateway().meta.uid}), False),
    ],
)
def test_whose_it_is(value: dict[str, Any], owned: bool) -> None:
    assert is_owned(value, gateway()) is owned


def test_who_has_made_it() -> None:
    assert is_made(thing(made_labels()), gateway())
    assert not is_made(thing({**made_labels(), "gateway.networking.k8s.io/gateway-name": "other"}), gateway())
    assert is_istiods(thing({"gateway.istio.io/managed": "istio.io-mesh-controller"}))
    assert not is_istiods(thing(made_labels()))


def test_status_and_the_deployments_own_annotations_are_no_change() -> None:
    def with_meta(**meta: Any) -> dict[str, Any]:
        return {"metadata": {"uid": "1", **meta}, "spec": {"replicas": 1}}

    plain = with_meta()
    revision = {"deployment.kubernetes.io/revision": "3"}
    same = {**with_meta(resourceVersion="7", annotations=revision), "status": {"replicas": 1}}
    assert mark_of(same) == mark_of({**plain, "metadata": {**plain["metadata"], "annotations": {}}})
    assert mark_of(with_meta(labels={"a": "b"})) != mark_of(plain)
    assert mark_of({**plain, "spec": {"replicas": 2}}) != mark_of(plain)


@pytest.mark.parametrize(("manager", "ours"), [("ztunnel-control", True), ("kubectl", False)])
def test_how_many_pods_there_are_is_ours_where_we_have_said_so(manager: str, ours: bool) -> None:
    entry = {"manager": manager, "fieldsV1": {"f:spec": {"f:replicas": {}}}}
    value = {"metadata": {"managedFields": [entry]}, "spec": {"replicas": 2}}
    assert has_our_number(value) is ours
    assert not has_our_number({**value, "spec": {}})
