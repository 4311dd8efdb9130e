"""What runs in the pods of a waypoint: what it may do, and what it is told."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.control.waypoints.test_deployment import TEMPLATE, gateway, pod
from ztunnel.control.settings import MeshSettings


def test_its_pods_have_no_rights():
    spec = pod()["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["automountServiceAccountToken"] is False
    [container] = spec["containers"]
    assert container["securityContext"] == {
        "privileged": False,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not any("hostPath" in volume for volume in spec["volumes"])
    mounted = {each["name"] for each in container["volumeMounts"]}
    assert mounted == {each["name"] for each in spec["volumes"]}


def test_it_is_told_where_its_control_plane_is_and_which_pod_it_is():
    settings = MeshSettings(
        cluster="c", cluster_domain="d", trust_domain="t", network="n", root_namespace="r"
    )
    template = replace(TEMPLATE, env={"LOG_LEVEL": "debug", "NETWORK": "m"})
    spec = pod(template=template, settings=settings, roots="own-roots")["spec"]
    env = {one["name"]: one.get("value") for one in spec["containers"][0]["env"]}
    assert len(env) == len(spec["containers"][0]["env"]), "each once: an apply refuses the second"
    assert env["XDS_ADDRESS"] == env["CA_ADDRESS"] == "https://control:15012"
    assert (env["CLUSTER_ID"], env["CLUSTER_DOMAIN"], env["TRUST_DOMAIN"]) == ("c", "d", "t")
    assert (env["ZTUNNEL_ROOT_NAMESPACE"], env["NETWORK"], env["LOG_LEVEL"]) == ("r", "m", "debug")
    assert {"POD_NAME", "POD_NAMESPACE", "NODE_NAME"} <= env.keys()
    assert env["TERMINATION_GRACE_PERIOD_SECONDS"] == str(spec["terminationGracePeriodSeconds"])
    [roots] = [each for each in spec["volumes"] if each["name"] == "root"]
    assert roots["configMap"]["name"] == "own-roots"


@pytest.mark.parametrize(("said", "told"), [("true", ["true"]), ("false", []), (None, [])])
def test_the_gateway_says_whether_servers_are_told_who_calls(said, told):
    one = gateway(**{"ambient.istio.io_xfcc-include-client-identity": said} if said else {})
    (container,) = pod(one=one)["spec"]["containers"]
    assert [each["value"] for each in container["env"] if each["name"] == "ZTUNNEL_XFCC"] == told
