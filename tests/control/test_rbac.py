"""What the chart allows a control plane is what it asks for, no less."""

from pathlib import Path

import yaml

from ztunnel.cli._cluster import LEASE
from ztunnel.control.settings import MeshSettings
from ztunnel.control.source.recall import NAME
from ztunnel.control.source.served import SERVED, mesh_config
from ztunnel.control.status.standing import MANAGER
from ztunnel.control.waypoints.deploy import WRITTEN
from ztunnel.control.waypoints.waypoint import CONTROLLER
from ztunnel.kube.resource import CONFIG_MAPS, CRDS, LEASES, PODS

BASE = Path(__file__).parents[2] / "deploy" / "kustomize" / "base" / "ztunnel.yaml"


ROLES = [
    one
    for one in yaml.load_all(BASE.read_text(), Loader=yaml.CSafeLoader)
    if one
    and one["kind"] in ("Role", "ClusterRole")
    and one["metadata"]["name"].startswith("ztunnel-control")
]


def allowed(kind, verb, group, resource, name=""):
    """Whether a role of that kind of the control plane allows it."""
    return any(
        verb in rule["verbs"] and group in rule["apiGroups"] and resource in rule["resources"]
        and name in rule.get("resourceNames", [name])
        for role in ROLES if role["kind"] == kind and role["metadata"]["name"] == "ztunnel-control"
        for rule in role["rules"]
    )  # fmt: skip


def test_every_kind_that_is_followed_may_be_listed_and_watched():
    for served in SERVED:
        resource = served.candidates[0]
        for verb in ("list", "watch"):
            assert allowed("ClusterRole", verb, resource.group, resource.plural), (verb, resource)
        if resource.custom:
            name = f"{resource.plural}.{resource.group}"
            assert allowed("ClusterRole", "get", CRDS.group, CRDS.plural, name), name


def test_statuses_may_be_patched_and_the_lease_kept():
    for served in SERVED:
        resource = served.candidates[0]
        spec = {"gatewayClassName": "ztunnel-waypoint", "controllerName": CONTROLLER}
        if served.has_status({"metadata": {"labels": {"istio.io/use-waypoint": "x"}}, "spec": spec}):
            assert allowed("ClusterRole", "patch", resource.group, f"{resource.plural}/status"), resource
    assert MANAGER == LEASE
    for verb in ("get", "update"):
        assert allowed("Role", verb, LEASES.group, LEASES.plural, LEASE)
    assert allowed("Role", "create", LEASES.group, LEASES.plural)


def test_enrolment_may_be_written_on_pods_and_nothing_else_of_them():
    """The status subresource takes metadata, and no spec."""
    assert allowed("ClusterRole", "patch", PODS.group, f"{PODS.plural}/status")
    for verb in ("patch", "update", "create", "delete"):
        assert not allowed("ClusterRole", verb, PODS.group, PODS.plural), verb


def test_waypoints_may_be_made_and_not_deleted():
    for resource in WRITTEN:
        for verb in ("get", "list", "watch", "create", "patch"):
            assert allowed("ClusterRole", verb, resource.group, resource.plural), (verb, resource)
        assert not allowed("ClusterRole", "delete", resource.group, resource.plural)
    assert allowed("ClusterRole", "get", PODS.group, PODS.plural)
    assert allowed("ClusterRole", "get", CONFIG_MAPS.group, CONFIG_MAPS.plural)
    assert allowed("Role", "list", CONFIG_MAPS.group, CONFIG_MAPS.plural)  # the defaults of a class


def test_last_good_versions_may_be_kept():
    for verb in ("get", "patch"):
        assert allowed("Role", verb, CONFIG_MAPS.group, CONFIG_MAPS.plural, NAME)
    assert allowed("ClusterRole", "create", CONFIG_MAPS.group, CONFIG_MAPS.plural)


def test_the_mesh_config_may_be_followed():
    served, namespace = mesh_config(MeshSettings())
    assert (namespace, dict(served.selectors)) == (
        "ztunnel-system",
        {"fieldSelector": "metadata.name=ztunnel-mesh"},
    )
    for verb in ("list", "watch"):
        assert allowed("Role", verb, CONFIG_MAPS.group, CONFIG_MAPS.plural, "ztunnel-mesh")


def test_nothing_is_allowed_by_a_wildcard():
    for role in ROLES:
        for rule in role["rules"]:
            assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"]
