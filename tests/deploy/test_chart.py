"""The Helm chart: what it renders is valid and asks for no more than it needs; a wrong value is named."""

from __future__ import annotations

import json
from dataclasses import fields

import kubernetes_validate
import pytest
import yaml

from tests.deploy.chart import (
    CHART,
    ROOT,
    Object,
    call_helm,
    container,
    containers,
    of_kind,
    render,
    rules,
    variables,
)
from ztunnel import __version__
from ztunnel.config import Settings
from ztunnel.control.waypoints.template import read_template
from ztunnel.kernel.capability import HOLDER, LOADER, PROXY, REDIRECTED

pytestmark = pytest.mark.timeout(60)

MONITORS = "--api-versions=monitoring.coreos.com/v1"
CONTROL = "ztunnel-control"
ROLLING = "node.updateStrategy.rollingUpdate"
VARIANTS = {
    "defaults": [],
    "credentials": ["waypoint.credentialNamespaces={shop,edge}"],
    "another control plane": [
        "control.enabled=false",
        "control.xdsAddress=https://istiod.istio-system.svc:15012",
    ],
    "pods of Istio's agent": [
        "node.podSource=zds",
        "control.enabled=false",
        "control.xdsAddress=https://istiod.istio-system.svc:15012",
    ],
    "one replica": ["control.replicas=1"],
    "the config of an istiod": ["control.meshConfigMap=istio-system/istio"],
    "everything": [
        "networkPolicy=true",
        "resourceQuota.enabled=true",
        "monitoring.dashboards=true",
        "control.meshConfig.accessLogFile=/dev/stdout",
        "node.mountBpffs=true",
        "node.env.KEEPALIVE_ENABLED=false",
        "control.env.LOG_FORMAT=json",
        "image.pullSecrets[0]=registry",
        "node.podLabels.team=net",
        "control.podAnnotations.team=net",
        "control.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight=1",
        "control.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0]"
        ".podAffinityTerm.topologyKey=zone",
    ],
}


@pytest.mark.parametrize("version", ["1.30", "1.33", "1.36"])
@pytest.mark.parametrize("settings", VARIANTS.values(), ids=VARIANTS)
def test_what_is_rendered_is_valid(settings: list[str], version: str):
    for each in render("--kube-version", f"{version}.0", settings=settings):
        kubernetes_validate.validate(each, version, strict=True)


def test_helm_finds_nothing_to_complain_of():
    done = call_helm("lint", "--strict", str(CHART))
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("node.podSource=cni", "at '/node/podSource': value must be one of 'kubelet', 'zds'"),
        ("node.sameNode=maybe", "at '/node/sameNode': value must be one of 'auto', 'direct', 'mtls'"),
        ("node.nope=1", "at '/node': additional properties 'nope' not allowed"),
        ("nope=1", "additional properties 'nope' not allowed"),
        ("control.replicas=0", "at '/control/replicas': minimum: got 0, want 1"),
        ("control.replicas=two", "at '/control/replicas': got string, want integer"),
        ("node.env.a-b=1", "at '/node/env': additional properties 'a-b' not allowed"),
        ("node.resources.requests.memory=lots", "at '/node/resources/requests/memory'"),
        ("node.terminationGracePeriodSeconds=0", "at '/node/terminationGracePeriodSeconds'"),
        ("control.terminationGracePeriodSeconds=0", "at '/control/terminationGracePeriodSeconds'"),
        ("control.xdsAddress=istiod", "at '/control/xdsAddress'"),
        ("control.showEnrolment=perhaps", "at '/control/showEnrolment'"),
        ("control.nodeTaint=not ready", "at '/control/nodeTaint'"),
        ("control.meshConfigMap=istio", "at '/control/meshConfigMap'"),
        ("control.signer.name=mesh", "at '/control/signer/name'"),
        ("control.signer.name=example.com/mesh", "at '/control/signer/rootConfigMap'"),
        ("monitoring.podMonitor=perhaps", "at '/monitoring/podMonitor'"),
        ("control.enabled=false", "control.xdsAddress: control.enabled is false, so say which control plane"),
    ],
)
def test_a_wrong_value_is_named(setting: str, complaint: str):
    done = call_helm("template", "ztunnel", str(CHART), "--set", setting)
    assert done.returncode != 0
    assert complaint in done.stderr


def test_the_mesh_config_is_a_config_map_that_the_control_plane_may_read():
    settings = "control.meshConfig.extensionProviders[0].name=a", "control.meshConfig.accessLogFile=/x"
    found = render(settings=settings)
    mesh = of_kind(found, "ConfigMap", "ztunnel-mesh")
    assert yaml.safe_load(mesh["data"]["mesh"]) == {
        "accessLogFile": "/x",
        "extensionProviders": [{"name": "a"}],
    }
    names = [rule.get("resourceNames") for rule in of_kind(found, "Role", "ztunnel-control")["rules"]]
    assert ["ztunnel-mesh"] in names


def test_the_mesh_config_of_another_mesh_is_only_read():
    found = render(settings=["control.meshConfigMap=istio-system/istio"])
    role = of_kind(found, "Role", "ztunnel-control-mesh")
    assert role["metadata"]["namespace"] == "istio-system"
    (rule,) = role["rules"]
    assert (rule["resourceNames"], rule["verbs"]) == (["istio"], ["get", "list", "watch"])
    assert variables(container(found, "control"))["ZTUNNEL_MESH_CONFIG_MAP"] == ("istio-system/istio")
    names = [rule.get("resourceNames") for rule in of_kind(found, "Role", "ztunnel-control")["rules"]]
    assert ["ztunnel-mesh"] not in names


def test_every_value_has_a_place_in_the_schema():
    def walk(values: Object, schema: Object, path: str) -> list[str]:
        missing = []
        for name, value in values.items():
            if name not in schema.get("properties", {}):
                missing.append(f"{path}{name}")
            elif isinstance(value, dict) and "properties" in schema["properties"][name]:
                missing += walk(value, schema["properties"][name], f"{path}{name}.")
        return missing

    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert walk(values, json.loads((CHART / "values.schema.json").read_text()), "") == []


def test_the_version_is_the_programs():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == chart["version"] == __version__
    images = {each["image"] for each in containers(render())}
    assert images == {f"ztunnel:{__version__}", f"ztunnel-loader:{__version__}"}
    named = {
        each["image"] for each in containers(render(settings=["image.repository=r.io/z", "image.tag=x"]))
    }
    assert named == {"r.io/z:x", "r.io/z-loader:x"}


# --- what it asks for ----------------------------------------------------------------

CAPABILITIES = {
    "loader": sorted(each.name for each in LOADER),
    "holder": sorted(each.name for each in HOLDER),
    "proxy": sorted(each.name for each in PROXY),
    "control": [],
}
"""What the programs themselves say that they need: they do not start with less."""


def test_nobody_has_more_than_it_needs():
    found = render()
    assert {
        each["name"]: each["securityContext"]["capabilities"].get("add", []) for each in containers(found)
    } == (CAPABILITIES)
    for each in containers(found):
        context = each["securityContext"]
        assert context["privileged"] is False, each["name"]
        assert context["readOnlyRootFilesystem"] is True, each["name"]
        assert context["capabilities"]["drop"] == ["ALL"], each["name"]
        assert each["resources"]["requests"], each["name"]
    pod = of_kind(found, "Deployment")["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert (
        of_kind(found, "DaemonSet", "ztunnel")["spec"]["template"]["spec"]["automountServiceAccountToken"]
        is False
    )


def test_pods_of_istios_agent_take_less_of_the_node():
    found = render(settings=VARIANTS["pods of Istio's agent"])
    assert [each["metadata"]["name"] for each in found if each["kind"] == "DaemonSet"] == ["ztunnel"]
    [proxy] = containers(found)
    wanted = {each.name for each in REDIRECTED}
    assert set(proxy["securityContext"]["capabilities"]["add"]) == wanted | {"NET_BIND_SERVICE"}
    assert variables(proxy)["ZTUNNEL_POD_SOURCE"] == "zds"
    assert set(variables(proxy)).isdisjoint({"ZTUNNEL_LOAD_PROGRAMS", "ZTUNNEL_DAEMON_SET"})
    pod = of_kind(found, "DaemonSet")["spec"]["template"]["spec"]
    assert "hostPID" not in pod
    assert "initContainers" not in pod
    volumes = {each["name"]: each for each in pod["volumes"]}
    assert set(volumes) == {"run", "token", "root", "tmp"}
    # The agent's socket, where the proxy looks for it.
    assert volumes["run"]["hostPath"]["path"] == str(Settings().inpod_uds.parent)
    mounts = {each["name"]: each["mountPath"] for each in proxy["volumeMounts"]}
    assert mounts["run"] == str(Settings().inpod_uds.parent)
    assert set(mounts) == set(volumes)
    assert not [each for each in found if each["kind"] in ("Role", "RoleBinding")]


def test_what_capabilities_are_for_is_written_down():
    text = (ROOT / "docs" / "operations.md").read_text()
    assert not [name for names in CAPABILITIES.values() for name in names if f"| `{name}` |" not in text]


def test_roles_have_no_wildcards_and_change_only_what_is_ours():
    found = list(rules(render(settings=VARIANTS["everything"])))
    assert found
    for rule in found:
        assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"], rule
        assert not {"delete", "deletecollection", "impersonate", "escalate", "bind"} & set(rule["verbs"]), (
            rule
        )
    without = list(rules([of_kind(render(settings=["waypoint.enabled=false"]), "ClusterRole", CONTROL)]))
    for rule in without:
        if "secrets" in rule["resources"]:
            pytest.fail(f"secrets of all namespaces: {rule}")
        changes = {"patch", "update"} & set(rule["verbs"])
        own = rule.get("resourceNames") or all(name.endswith("/status") for name in rule["resources"])
        assert not changes or own, rule
    # Waypoints for Gateways are these kinds, and nothing else of all namespaces is written.
    more = [rule for rule in rules([of_kind(render(), "ClusterRole", CONTROL)]) if rule not in without]
    kinds = {name for rule in more for name in rule["resources"]}
    assert kinds == {
        "services", "serviceaccounts", "deployments", "poddisruptionbudgets", "horizontalpodautoscalers",
        "configmaps",
    }  # fmt: skip


def test_waypoints_are_made_of_the_values_of_the_chart():
    settings = [
        "waypoint.replicas=2", "waypoint.env.ZTUNNEL_CONNECT_TIMEOUT=3s", "waypoint.tolerations[0].key=x",
        "image.pullSecrets[0]=key", "monitoring.annotations=false",
    ]  # fmt: skip
    pod = of_kind(render(settings=settings), "Deployment")["spec"]["template"]["spec"]
    template = read_template(variables(pod["containers"][0])["ZTUNNEL_WAYPOINT"])
    assert template.control == "https://ztunnel-control.ztunnel-system.svc:15012"
    assert (template.replicas, template.pull_secrets, template.scraped) == (2, ("key",), False)
    assert template.env["ZTUNNEL_CONNECT_TIMEOUT"] == "3s"
    assert template.placement == {"tolerations": [{"key": "x"}]}
    none = of_kind(render(settings=["waypoint.enabled=false"]), "Deployment")["spec"]["template"]["spec"]
    assert "ZTUNNEL_WAYPOINT" not in variables(none["containers"][0])


def test_nodes_are_changed_only_where_their_taint_is_to_go():
    def verbs(*settings: str) -> set[str]:
        found = rules([of_kind(render(settings=list(settings)), "ClusterRole", CONTROL)])
        return {verb for rule in found if "nodes" in rule["resources"] for verb in rule["verbs"]}

    assert verbs() == {"get", "list", "watch"}
    key = "control.nodeTaint=ztunnel.io/not-ready"
    assert verbs(key) == {"get", "list", "watch", "patch"}
    pod = of_kind(render(settings=[key, "control.tolerations[0].key=x"]), "Deployment")["spec"]["template"][
        "spec"
    ]
    assert [each["key"] for each in pod["tolerations"]] == ["ztunnel.io/not-ready", "x"]
    assert variables(pod["containers"][0])["ZTUNNEL_NODE_TAINT"] == "ztunnel.io/not-ready"
    for each in render(settings=[key]):
        if each["kind"] == "DaemonSet":
            assert {"effect": "NoSchedule", "operator": "Exists"} in each["spec"]["template"]["spec"][
                "tolerations"
            ]


def test_a_signer_of_the_cluster_is_asked_only_where_one_is_named():
    def rules(*settings: str) -> list[Object]:
        roles = [one for one in render(settings=settings) if one["kind"] == "ClusterRole"]
        every = [rule for role in roles for rule in role["rules"]]
        return [rule for rule in every if "certificatesigningrequests" in rule["resources"]]

    assert rules() == []
    settings = "control.signer.name=example.com/mesh", "control.signer.rootConfigMap=roots"
    assert [rule["verbs"] for rule in rules(*settings)] == [["create", "get", "delete"]]
    pod = of_kind(render(settings=settings), "Deployment")["spec"]["template"]["spec"]
    given = variables(pod["containers"][0])
    assert given["ZTUNNEL_SIGNER_NAME"] == "example.com/mesh"
    mount = next(one for one in pod["containers"][0]["volumeMounts"] if one["name"] == "signer")
    assert given["ZTUNNEL_SIGNER_ROOT"] == f"{mount['mountPath']}/root-cert.pem"
    volume = next(one for one in pod["volumes"] if one["name"] == "signer")
    assert volume["configMap"]["name"] == "roots"


def test_pods_are_changed_only_where_their_enrolment_is_shown():
    def allowed(*settings: str) -> bool:
        found = rules([of_kind(render(settings=list(settings)), "ClusterRole", CONTROL)])
        return any("pods/status" in rule["resources"] for rule in found)

    assert allowed()
    assert not allowed("control.showEnrolment=false")
    [container] = of_kind(render(settings=["control.showEnrolment=false"]), "Deployment")["spec"]["template"][
        "spec"
    ]["containers"]
    assert variables(container)["ZTUNNEL_SHOW_ENROLMENT"] == "false"


def test_the_node_proxy_may_read_its_own_daemon_set_and_namespace_and_nodes_and_nothing_else():
    found = render()
    bound = [
        each["roleRef"]
        for each in found
        if each["kind"].endswith("RoleBinding") and each["subjects"][0]["name"] == "ztunnel"
    ]
    assert bound == [
        {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "ztunnel-node"},
        {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "ztunnel"},
    ]
    of_nodes = of_kind(found, "ClusterRole", "ztunnel-node")["rules"]
    assert of_nodes == [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]}]
    [role] = [each for each in found if each["kind"] == "Role" and each["metadata"]["name"] == "ztunnel"]
    daemon_set = of_kind(found, "DaemonSet", "ztunnel")
    assert role["rules"] == [
        {"apiGroups": ["apps"], "resources": ["daemonsets"], "resourceNames": ["ztunnel"], "verbs": ["get"]},
        {
            "apiGroups": [""],
            "resources": ["namespaces"],
            "resourceNames": ["ztunnel-system"],
            "verbs": ["get"],
        },
    ]
    named = f"{daemon_set['metadata']['namespace']}/{daemon_set['metadata']['name']}"
    assert variables(container(found, "proxy"))["ZTUNNEL_DAEMON_SET"] == named


def test_a_new_proxy_is_there_before_the_old_one_ends():
    for name in ("ztunnel", "ztunnel-holder"):
        strategy = of_kind(render(), "DaemonSet", name)["spec"]["updateStrategy"]
        assert strategy == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}


EVICTION = "cluster-autoscaler.kubernetes.io/enable-ds-eviction"


def test_what_pods_need_while_they_end_is_there_until_they_have_ended():
    """The cluster autoscaler, which evicts DaemonSets' pods with all others (kubernetes/autoscaler issues
    4337 and 6580), leaves ours; a kubelet that shuts its node down ends them with the last."""
    for name in ("ztunnel", "ztunnel-holder"):
        template = of_kind(render(), "DaemonSet", name)["spec"]["template"]
        assert template["metadata"]["annotations"][EVICTION] == "false"
        assert template["spec"]["priorityClassName"] == "system-node-critical"
        assert {"effect": "NoExecute", "operator": "Exists"} in template["spec"]["tolerations"]
    said = json.dumps({"podAnnotations": {EVICTION: "true"}})
    done = call_helm("template", "ztunnel", str(CHART), "--set-json", f"node={said}")
    assert done.stdout.count(f'{EVICTION}: "true"') == 1
    assert done.stdout.count(f'{EVICTION}: "false"') == 1, "the holder's"


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ([f"{ROLLING}.maxSurge=0", f"{ROLLING}.maxUnavailable=1"], "OnDelete"),
        ([f"{ROLLING}.maxSurge=0%", f"{ROLLING}.maxUnavailable=20%"], "OnDelete"),
        ([f"{ROLLING}.maxSurge=null", f"{ROLLING}.maxUnavailable=1"], "OnDelete"),
        (["node.updateStrategy.type=OnDelete"], "OnDelete"),
        ([f"{ROLLING}.maxSurge=30%"], "RollingUpdate"),
        (["node.updateStrategy.type=OnDelete", "holder.updateStrategy.type=RollingUpdate"], "RollingUpdate"),
    ],
)
def test_a_holder_is_not_replaced_while_proxies_are_away(settings: list[str], kind: str):
    strategy = of_kind(render(settings=settings), "DaemonSet", "ztunnel-holder")["spec"]["updateStrategy"]
    assert strategy["type"] == kind


def test_where_new_connections_would_be_refused_it_has_to_be_said_so():
    one_by_one = f"{ROLLING}.maxSurge=0,{ROLLING}.maxUnavailable=1"
    done = call_helm("template", "ztunnel", str(CHART), "--set", one_by_one, "--set", "holder.enabled=false")
    assert done.returncode != 0
    assert "holder.enabled: false, and node proxies are replaced one after the other" in done.stderr
    found = render(settings=["holder.enabled=false"])
    assert [each["metadata"]["name"] for each in found if each["kind"] == "DaemonSet"] == ["ztunnel"]
    on_delete = render(settings=["holder.enabled=false", "node.updateStrategy.type=OnDelete"])
    assert of_kind(on_delete, "DaemonSet")["metadata"]["name"] == "ztunnel"


def test_the_holder_asks_for_the_proxies_and_meets_them():
    found = render()
    proxy, holder = (
        of_kind(found, "DaemonSet", name)["spec"]["template"]["spec"]
        for name in ("ztunnel", "ztunnel-holder")
    )
    told = variables(container(found, "holder"))
    assert told["ZTUNNEL_DAEMON_SET"] == variables(container(found, "proxy"))["ZTUNNEL_DAEMON_SET"]
    for each in ("nodeSelector", "tolerations", "priorityClassName", "serviceAccountName", "hostPID"):
        assert holder[each] == proxy[each]
    volumes = {each["name"]: each for each in proxy["volumes"]}
    assert [each for each in holder["volumes"] if volumes[each["name"]] != each] == []
    assert holder["terminationGracePeriodSeconds"] > Settings().hold_seconds


def test_our_own_pods_are_not_in_the_mesh():
    for each in render():
        if each["kind"] in ("DaemonSet", "Deployment"):
            labels = each["spec"]["template"]["metadata"]["labels"]
            assert labels["istio.io/dataplane-mode"] == "none"


# --- what it says to whom ------------------------------------------------------------


def test_every_variable_is_one_that_is_read():
    sources = [one.metadata["source"] for one in fields(Settings) if "source" in one.metadata]
    known = {name for source in sources for name in source.variables} | {"TERMINATION_GRACE_PERIOD_SECONDS"}
    found = render()
    for name in ("proxy", "loader", "holder", "control"):
        assert set(variables(container(found, name))) <= known


@pytest.mark.parametrize(
    ("settings", "xds", "ca"),
    [
        (
            [],
            "https://ztunnel-control.ztunnel-system.svc:15012",
            "https://ztunnel-control.ztunnel-system.svc:15012",
        ),
        (
            ["control.caAddress=https://istio-csr.cert-manager.svc:443"],
            "https://ztunnel-control.ztunnel-system.svc:15012",
            "https://istio-csr.cert-manager.svc:443",
        ),
        (
            ["control.enabled=false", "control.xdsAddress=https://i:15012"],
            "https://i:15012",
            "https://i:15012",
        ),
    ],
)
def test_the_proxy_is_told_where_world_and_certificates_are(settings: list[str], xds: str, ca: str):
    told = variables(container(render(settings=settings), "proxy"))
    assert (told["XDS_ADDRESS"], told["CA_ADDRESS"]) == (xds, ca)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ([], "ztunnel-ca-root-cert"),
        (["control.enabled=false", "control.xdsAddress=https://i:15012"], "istio-ca-root-cert"),
    ],
)
def test_the_proxy_knows_its_control_plane_by_the_roots_of_that_one(settings: list[str], name: str):
    pods = [
        one["spec"]["template"]["spec"] for one in render(settings=settings) if one["kind"] == "DaemonSet"
    ]
    mounted = [
        volume["configMap"]["name"] for pod in pods for volume in pod["volumes"] if "configMap" in volume
    ]
    assert mounted == [name]


def test_what_is_mounted_is_there_and_all_of_it_is_used():
    for each in render(settings=VARIANTS["everything"]):
        pod = each.get("spec", {}).get("template", {}).get("spec", {})
        volumes = {volume["name"] for volume in pod.get("volumes", [])}
        assert {mount["name"] for one in containers([each]) for mount in one["volumeMounts"]} == volumes


def test_probes_and_scrapers_find_their_ports():
    found = render(MONITORS)
    for kind, port in (("DaemonSet", 15020), ("Deployment", 15014)):
        name = {"DaemonSet": "ztunnel", "Deployment": "ztunnel-control"}[kind]
        template = of_kind(found, kind, name)["spec"]["template"]
        [one] = template["spec"]["containers"]
        ports = {each["name"]: each["containerPort"] for each in one["ports"]}
        assert ports["metrics"] == port
        assert ports[one["readinessProbe"]["httpGet"]["port"]] == 15021
        assert template["metadata"]["annotations"]["prometheus.io/port"] == str(port)
        assert template["metadata"]["annotations"]["prometheus.io/scrape"] == "true"
    assert of_kind(found, "PodMonitor")["spec"]["podMetricsEndpoints"][0]["port"] == "metrics"
    assert of_kind(found, "ServiceMonitor")["spec"]["endpoints"][0]["port"] == "metrics"


@pytest.mark.parametrize(
    ("words", "settings", "kinds"),
    [
        ((), [], set()),
        ((MONITORS,), [], {"PodMonitor", "ServiceMonitor"}),
        ((MONITORS,), ["monitoring.podMonitor=false"], {"ServiceMonitor"}),
        ((), ["monitoring.podMonitor=true"], {"PodMonitor"}),
    ],
)
def test_kinds_of_the_prometheus_operator_are_made_where_it_is(
    words: tuple[str, ...], settings: list[str], kinds: set[str]
):
    made = {each["kind"] for each in render(*words, settings=settings)}
    assert made & {"PodMonitor", "ServiceMonitor"} == kinds


def test_secrets_may_be_read_where_it_is_said_and_nowhere_else() -> None:
    def readable(*values: str) -> list[tuple[str, tuple[str, ...]]]:
        return [
            (role["metadata"]["namespace"], tuple(rule["verbs"]))
            for role in render(settings=values)
            if role["kind"] == "Role"
            for rule in role["rules"]
            if "secrets" in rule["resources"]
            and "resourceNames" not in rule
            and "create" not in rule["verbs"]
        ]

    assert readable() == []
    both = readable("waypoint.credentialNamespaces={shop,edge}")
    assert both == [("shop", ("list", "watch")), ("edge", ("list", "watch"))]
