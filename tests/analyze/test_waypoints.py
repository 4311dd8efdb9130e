"""Tables of waypoints, who uses one, and what is said before a namespace gets one."""

import pytest

from ztunnel.analyze.waypoints import as_list, as_status, enrolment, manifest, rows, users
from ztunnel.control.index import Index
from ztunnel.control.settings import MeshSettings
from ztunnel.control.source.document import KINDS
from ztunnel.control.source.reading import read_value
from ztunnel.control.waypoints.waypoint import Waypoints


def gateway(
    name="waypoint", namespace="shop", kind="ztunnel-waypoint", programmed=None, generation=1, **labels
):
    made = manifest(name, namespace, of_class=kind)
    names = {"rev": "istio.io/rev", "traffic": "istio.io/waypoint-for"}
    made["metadata"] |= {"generation": 2, "labels": {names[key]: value for key, value in labels.items()}}
    if programmed:
        reason, message = ("Programmed", "it is") if programmed == "True" else ("Pending", "no pod yet")
        one = {"type": "Programmed", "status": programmed, "reason": reason, "message": message}
        made["status"] = {"conditions": [{**one, "observedGeneration": generation}]}
    return made


@pytest.mark.parametrize("traffic", ["", "service", "workload", "all", "none"])
def test_the_gateway_that_is_asked_for_is_one_that_the_control_plane_takes(traffic):
    made = manifest("wp", "shop", traffic, "canary")
    found = read_value(made, KINDS["gateway.networking.k8s.io", "Gateway"], strict=True)
    assert found.faults == ()
    waypoints = Waypoints(Index(), MeshSettings())
    waypoints.put(found.key, None, found.object)
    assert waypoints.state(("shop", "wp")).invalid == ""
    labels = made["metadata"]["labels"]
    assert labels == {"istio.io/rev": "canary", **({"istio.io/waypoint-for": traffic} if traffic else {})}


def test_those_of_other_classes_are_no_waypoints():
    found = rows(
        [gateway("b"), gateway("a", kind="istio-waypoint"), gateway("c", kind="istio"), {"metadata": {}}]
    )
    assert [one.name for one in found] == ["a", "b"]


def test_a_list_has_istioctls_columns():
    found = rows([gateway(programmed="True", generation=2, traffic="all", rev="r"), gateway("other", "z")])
    assert as_list(found, namespaces=False).splitlines() == [
        "NAME       REVISION   TRAFFIC TYPE   PROGRAMMED",
        "waypoint   r          all            True",
        "other      default    service        Unknown",
    ]
    assert as_list(found, namespaces=True).splitlines()[1].split() == ["shop", "waypoint", "r", "all", "True"]


def test_a_status_says_why_and_what_is_said_of_an_earlier_version_does_not_count():
    found = rows([gateway(programmed="False", generation=2), gateway("old", programmed="True")])
    lines = as_status(found, namespaces=True).splitlines()
    assert lines[0].split() == ["NAMESPACE", "NAME", "STATUS", "TYPE", "REASON", "MESSAGE"]
    assert lines[1].split()[:4] == ["shop", "old", "Unknown", "Programmed"]
    assert lines[2].split() == ["shop", "waypoint", "False", "Programmed", "Pending", "no", "pod", "yet"]


def test_who_uses_it_is_found_by_the_labels_of_both_namespaces():
    def one(kind, name, namespace, **labels):
        meta = {"name": name, "namespace": namespace} if namespace else {"name": name}
        return {"kind": kind, "metadata": {**meta, "labels": {f"istio.io/{k}": v for k, v in labels.items()}}}

    here = {"use-waypoint": "wp"}
    objects = [
        one("Namespace", "shop", "", **here),
        one("Service", "web", "shop", **here),
        one("Service", "web", "other", **here),
        one("Pod", "far", "other", **here, **{"use-waypoint-namespace": "shop"}),
        one("Service", "not", "shop", **{"use-waypoint": "none"}),
        {"kind": "Pod", "metadata": {"name": "plain", "namespace": "shop"}},
    ]
    assert list(users("wp", "shop", objects)) == ["namespace shop", "service shop/web", "pod other/far"]


@pytest.mark.parametrize(
    ("labels", "overwrite", "warns", "refuses"),
    [
        ({"istio.io/dataplane-mode": "ambient"}, False, False, False),
        ({}, False, True, False),
        ({"istio.io/use-waypoint": "wp"}, False, True, False),
        ({"istio.io/use-waypoint": "other"}, False, True, True),
        ({"istio.io/use-waypoint": "other"}, True, True, False),
    ],
)
def test_before_a_namespace_is_labelled_it_is_looked_at(labels, overwrite, warns, refuses):
    warning, refusal = enrolment({"metadata": {"name": "shop", "labels": labels}}, "wp", overwrite=overwrite)
    assert (bool(warning), bool(refusal)) == (warns, refuses)
