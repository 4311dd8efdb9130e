"""What a waypoint is made of, from its Gateway and the values of the chart."""

from __future__ import annotations

from dataclasses import replace

import pytest
import yaml

from ztunnel.control.settings import MeshSettings
from ztunnel.control.source.document import KINDS
from ztunnel.control.source.reading import read_value
from ztunnel.control.waypoints.deployment import name_of, render
from ztunnel.control.waypoints.template import Template
from ztunnel.kube.resource import DEPLOYMENTS, DISRUPTION_BUDGETS, POD_AUTOSCALERS, SERVICE_ACCOUNTS, SERVICES

TEMPLATE = Template(image="registry.example/ztunnel:1", control="https://control:15012")
GATEWAY = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata:
  name: wp
  namespace: shop
  uid: u-1
  annotations: {}
spec:
  gatewayClassName: ztunnel-waypoint
  infrastructure:
    labels: {team: a, istio.io/dataplane-mode: ambient}
    annotations: {note: b}
  listeners: [{name: mesh, port: 15008, protocol: HBONE}]
"""


def gateway(**annotations):
    value = yaml.safe_load(GATEWAY)
    value["metadata"]["annotations"] = {name.replace("_", "/"): one for name, one in annotations.items()}
    return read_value(value, KINDS["gateway.networking.k8s.io", "Gateway"], strict=False).object


def parts(one=None, template=TEMPLATE, settings=None, roots="istio-ca-root-cert"):
    made = render(one or gateway(), template, settings or MeshSettings(), roots)
    return {part.resource.kind: part.value for part in made}


def pod(**more):
    return parts(**more)["Deployment"]["spec"]["template"]


def test_all_of_it_is_the_gateways_own_and_named_as_it():
    found = parts()
    assert list(found) == ["ServiceAccount", "Service", "Deployment", "PodDisruptionBudget"]
    for kind, value in found.items():
        meta = value["metadata"]
        assert (value["kind"], meta["namespace"], meta["name"]) == (kind, "shop", "wp")
        [owner] = meta["ownerReferences"]
        assert (owner["kind"], owner["name"], owner["uid"]) == ("Gateway", "wp", "u-1")
        assert meta["labels"]["gateway.networking.k8s.io/gateway-name"] == "wp"
        assert meta["labels"]["gateway.istio.io/managed"] == "ztunnel.io-waypoint-controller"
        assert meta["labels"]["team"] == "a"
        assert meta["annotations"]["note"] == "b"


def test_its_service_takes_tunnels_and_probes_in_both_families():
    spec = parts()["Service"]["spec"]
    assert {port["name"]: port["port"] for port in spec["ports"]} == {"status-port": 15021, "mesh": 15008}
    assert (spec["type"], spec["ipFamilyPolicy"]) == ("ClusterIP", "PreferDualStack")
    assert spec["selector"].items() <= pod()["metadata"]["labels"].items()


def test_its_pods_are_none_of_the_mesh_whatever_the_gateway_says_and_take_tunnels():
    labels = pod()["metadata"]["labels"]
    assert labels["istio.io/dataplane-mode"] == "none"
    assert labels["networking.istio.io/tunnel"] == "http"
    assert labels["service.istio.io/canonical-name"] == "wp"
    assert pod(settings=MeshSettings(network="n"))["metadata"]["labels"]["topology.istio.io/network"] == "n"


@pytest.mark.parametrize(
    ("said", "replicas"), [("", 2), ("3", 3), ("0", 0), ("auto", None), ("-1", 2), ("²", 2), ("x", 2)]
)
def test_how_many_pods_the_gateway_says_or_the_chart(said, replicas):
    one = gateway(**{"ztunnel.io_replicas": said} if said else {})
    spec = parts(one, replace(TEMPLATE, replicas=2))["Deployment"]["spec"]
    assert spec.get("replicas") == replicas
    assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    if not said:
        assert "replicas" not in parts(one)["Deployment"]["spec"], "one is Kubernetes' own default"


def test_names_account_and_kind_of_service_may_be_others():
    said = {
        "gateway.istio.io_name-override": "other",
        "gateway.istio.io_service-account": "robot",
        "networking.istio.io_service-type": "NodePort",
    }
    found = parts(gateway(**said))
    assert list(found) == ["Service", "Deployment", "PodDisruptionBudget"]
    assert found["Deployment"]["metadata"]["name"] == name_of(gateway(**said)) == "other"
    assert found["Deployment"]["spec"]["template"]["spec"]["serviceAccountName"] == "robot"
    assert found["Service"]["spec"]["type"] == "NodePort"


def test_the_chart_places_labels_and_scrapes_them():
    template = replace(
        TEMPLATE,
        pull_secrets=("key",),
        priority_class="high",
        placement={"nodeSelector": {"zone": "a"}, "tolerations": [{"operator": "Exists"}]},
        pod_labels={"x": "1", "istio.io/dataplane-mode": "ambient"},
        pod_annotations={"y": "2"},
        resources={"limits": {"memory": "1Gi"}},
    )
    made = pod(template=template)
    assert made["metadata"]["labels"]["x"] == "1"
    assert made["metadata"]["labels"]["istio.io/dataplane-mode"] == "none"
    assert made["metadata"]["annotations"]["prometheus.io/port"] == "15020"
    assert made["metadata"]["annotations"]["y"] == "2"
    assert made["spec"]["nodeSelector"] == {"kubernetes.io/os": "linux", "zone": "a"}
    assert made["spec"]["tolerations"] == [{"operator": "Exists"}]
    assert made["spec"]["imagePullSecrets"] == [{"name": "key"}]
    assert made["spec"]["priorityClassName"] == "high"
    assert made["spec"]["containers"][0]["resources"] == {"limits": {"memory": "1Gi"}}
    plain = pod(template=replace(TEMPLATE, scraped=False))["metadata"]
    assert plain["annotations"] == {"note": "b"}


def test_what_a_gateway_wants_otherwise_is_laid_over_its_object_alone() -> None:
    overlays = {
        "deployment": {"spec": {"replicas": 4}},
        "serviceAccount": {"metadata": {"annotations": {"eks.amazonaws.com/role-arn": "x"}}},
    }
    plain = {part.resource: part.value for part in render(gateway(), TEMPLATE, MeshSettings(), "roots")}
    laid = {
        part.resource: part.value for part in render(gateway(), TEMPLATE, MeshSettings(), "roots", [overlays])
    }
    assert laid[DEPLOYMENTS]["spec"]["replicas"] == 4
    annotations = laid[SERVICE_ACCOUNTS]["metadata"]["annotations"]
    assert annotations == {"note": "b", "eks.amazonaws.com/role-arn": "x"}
    assert {one: value for one, value in laid.items() if one not in (DEPLOYMENTS, SERVICE_ACCOUNTS)} == {
        one: value for one, value in plain.items() if one not in (DEPLOYMENTS, SERVICE_ACCOUNTS)
    }


@pytest.mark.parametrize("replicas", [1, 3])
def test_where_an_autoscaler_says_how_many_the_deployment_does_not(replicas: int) -> None:
    template = replace(TEMPLATE, replicas=replicas)
    overlays = {"horizontalPodAutoscaler": {"spec": {"maxReplicas": 4}}}
    made = {
        part.resource: part.value for part in render(gateway(), template, MeshSettings(), "roots", [overlays])
    }
    assert "replicas" not in made[DEPLOYMENTS]["spec"]
    assert made[POD_AUTOSCALERS]["spec"] == {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "wp"},
        "maxReplicas": 4,
    }
    assert made[POD_AUTOSCALERS]["metadata"]["ownerReferences"]


@pytest.mark.parametrize("said", [{"minAvailable": 2}, {"maxUnavailable": "50%"}])
def test_a_disruption_budget_says_one_of_the_two(said: dict[str, object]) -> None:
    overlays = {"podDisruptionBudget": {"spec": said}}
    made = {
        part.resource: part.value for part in render(gateway(), TEMPLATE, MeshSettings(), "roots", [overlays])
    }
    spec = made[DISRUPTION_BUDGETS]["spec"]
    assert {name: one for name, one in spec.items() if name != "selector"} == said


def test_what_a_gateway_wants_is_laid_over_what_its_class_does() -> None:
    of_class = {
        "deployment": {"spec": {"replicas": 3, "template": {"spec": {"priorityClassName": "low"}}}},
        "service": {"spec": {"type": "LoadBalancer"}},
    }
    own = {"deployment": {"spec": {"replicas": 5, "template": {"spec": {"priorityClassName": None}}}}}
    made = {
        part.resource: part.value
        for part in render(gateway(), TEMPLATE, MeshSettings(), "roots", [of_class, own])
    }
    spec = made[DEPLOYMENTS]["spec"]
    assert spec["replicas"] == 5
    assert "priorityClassName" not in spec["template"]["spec"]
    assert made[SERVICES]["spec"]["type"] == "LoadBalancer"
