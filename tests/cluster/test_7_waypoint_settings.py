"""What is said of a waypoint beside routes and policies: whom it asks (mesh config), what it reports
(Telemetry), limits (RateLimitPolicy) and shows to servers (credentialName), and what its Gateway or its class
wants otherwise of its pods (parametersRef, an autoscaler)."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster import secrets
from tests.cluster.apps import CALL, LOAD, OPT_IN, Apps, namespace
from tests.cluster.cluster import Cluster, Object, wait_until
from tests.cluster.conftest import SYSTEM, Mesh
from tests.cluster.settings import (
    CONFIG,
    SECONDS,
    TOOLS,
    about_web,
    calls,
    condition,
    gateway,
    is_said,
    mesh_config,
    pages,
    parameters,
    statuses,
    waypoints,
)

pytestmark = pytest.mark.timeout(300)

SCALED_SECONDS = 60
"""A HorizontalPodAutoscaler is looked at every fifteen seconds."""
USE = "istio.io/use-waypoint"
CLASS = "ztunnel-waypoint"
DEFAULTS = "test-defaults"
TEAM, OF_CLASS = "example.org/team", "example.org/class"

SCALED = {
    "deployment": """
spec:
  template:
    metadata: {annotations: {example.org/team: web}}
    spec:
      containers:
      - {name: istio-proxy, env: [{name: LOG_LEVEL, value: info}], resources: {requests: {cpu: 10m}}}
""",
    "podDisruptionBudget": "spec: {minAvailable: 1}",
    "horizontalPodAutoscaler": """
spec:
  minReplicas: 3
  maxReplicas: 4
  metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 80}}}]
""",
}


@pytest.fixture(scope="module")
def shop(mesh: Mesh, cluster: Cluster) -> Iterator[Apps]:
    """Pod a calls service web behind a waypoint, which pod t serves in other ways."""
    first, last = cluster.nodes()[0], cluster.nodes()[-1]
    labels = {OPT_IN: "ambient", USE: "wp"}
    with namespace(cluster, f"ztunnel-test-{os.getpid()}-settings", labels) as apps:
        tools = apps.server("t", first)
        tools["spec"]["containers"][0]["command"] = ["python3", "-c", TOOLS, "8080"]
        apps.cluster.apply(gateway(apps, **{"ztunnel.io/replicas": "2"}))
        apps.start(
            apps.server("a", first), apps.server("b", last), tools,
            apps.service("web", "b"), apps.service("tools", "t"),
        )  # fmt: skip
        wait_until("it serves", lambda: condition(apps, "gateway", "wp", "Programmed")[0] == "True", SECONDS)
        for address in apps.service_addresses("web"):
            wait_until("it is called", lambda at=address: statuses(apps, at)[0] == 200, SECONDS)
        yield apps


def test_an_authorizer_of_the_mesh_config_is_asked_and_a_bad_change_of_it_changes_nothing(shop: Apps) -> None:
    cluster, addresses = shop.cluster, shop.service_addresses("web")
    security = "security.istio.io/v1"
    rules = [{"to": [{"operation": {"paths": ["/asked*"]}}]}]
    policy = about_web(
        shop, security, "AuthorizationPolicy", action="CUSTOM", provider={"name": "asked"}, rules=rules
    )
    kind = "authorizationpolicy"
    try:
        cluster.apply(policy)
        is_said(shop, kind, "True", "PartiallyInvalid", "there is no provider 'asked'")
        assert statuses(shop, addresses[0], "/asked", x_key="right") == [403]
        cluster.apply(mesh_config(shop))
        is_said(shop, kind, "True", "Accepted")
        for address in addresses:
            wait_until("it is asked", lambda at=address: is_asked(shop, at), SECONDS)
            assert statuses(shop, address, "/who") == [200]
        cluster.apply(mesh_config(shop, timeout="soon"))
        wait_until("it is said", lambda: "'asked' is not taken over" in control_logs(cluster), SECONDS)
        assert is_asked(shop, addresses[0])
        cluster.call("-n", SYSTEM, "delete", "configmap", CONFIG["name"])
        is_said(shop, kind, "True", "PartiallyInvalid", "there is no provider 'asked'")
        wait_until("nobody is asked", lambda: not is_asked(shop, addresses[0]), SECONDS)
    finally:
        cluster.call("-n", shop.namespace, "delete", kind, "web", "--ignore-not-found")
        cluster.call("-n", SYSTEM, "delete", "configmap", CONFIG["name"], "--ignore-not-found")


def is_asked(shop: Apps, address: str) -> bool:
    told = [statuses(shop, address, "/asked", x_key=key)[0] for key in ("right", "wrong")]
    return told == [200, 403]


def control_logs(cluster: Cluster) -> str:
    found = cluster.pods(SYSTEM, "app.kubernetes.io/component=control")
    return "\n".join(cluster.logs(each, 200) for each in found)


def test_a_telemetry_says_what_is_logged_counted_and_traced_and_a_bad_change_changes_nothing(
    shop: Apps,
) -> None:
    cluster, addresses = shop.cluster, shop.service_addresses("web")
    by_path = {"asked_for": {"value": "request.url_path"}}
    counted = {"match": {"metric": "REQUEST_COUNT"}, "tagOverrides": by_path}
    wishes = {
        "accessLogging": [
            {"providers": [{"name": "lines"}], "filter": {"expression": "request.url_path == '/logged'"}}
        ],
        "metrics": [{"providers": [{"name": "prometheus"}], "overrides": [counted]}],
        "tracing": [{"providers": [{"name": "spans"}], "randomSamplingPercentage": 100.0}],
    }
    telemetry = about_web(shop, "telemetry.istio.io/v1", "Telemetry", **wishes)
    try:
        cluster.apply(mesh_config(shop), telemetry)
        is_said(shop, "telemetry", "True", "Accepted")
        for number, address in enumerate(addresses):
            path = f"/traced-{number}"

            def is_counted(at: str = address, path: str = path) -> bool:
                return statuses(shop, at, path) == [200] and f'asked_for="{path}"' in pages(shop)

            wait_until("it is counted by path", is_counted, SECONDS)
            wait_until("its span is there", lambda path=path: path in spans(shop), SECONDS)
            assert statuses(shop, address, "/logged") == [200]
        lines = wait_until("it is logged", lambda: logged(shop, len(addresses)), SECONDS)
        assert set(lines) == {"seen /logged 200"}
        wrong = {"accessLogging": [{"filter": {"expression": "request.nothing == 1"}}]}
        cluster.apply(about_web(shop, "telemetry.istio.io/v1", "Telemetry", **{**wishes, **wrong}))
        is_said(shop, "telemetry", "False", "Invalid", "accessLogging[0].filter.expression")
        assert statuses(shop, addresses[0], "/logged") == [200]
        wait_until("it is logged as before", lambda: logged(shop, len(addresses) + 1), SECONDS)
    finally:
        cluster.call("-n", shop.namespace, "delete", "telemetry", "web", "--ignore-not-found")
        cluster.call("-n", SYSTEM, "delete", "configmap", CONFIG["name"], "--ignore-not-found")


def spans(shop: Apps) -> str:
    """The URLs of those that have been sent."""
    return shop.python("t", "import urllib.request as u; print(u.urlopen('http://[::1]:8080/seen').read())")


def logged(shop: Apps, count: int) -> list[str]:
    """The lines of the provider, once there are so many."""
    lines = "\n".join(shop.cluster.logs(each) for each in waypoints(shop)).splitlines()
    found = [each for each in lines if each.startswith("seen ")]
    return found if len(found) >= count else []


def test_a_rate_limit_holds_and_a_bad_change_of_it_changes_nothing(shop: Apps) -> None:
    """For each user so many in each pod of the waypoint, as they count for themselves."""
    cluster, [address, *more] = shop.cluster, shop.service_addresses("web")
    rule: dict[str, Any] = {
        "name": "per user",
        "clientSelectors": [{"headers": [{"name": "end-user", "type": "Distinct"}]}],
        "limit": {"requests": 2, "unit": "Hour"},
    }
    version, kind = "ztunnel.io/v1alpha1", "ratelimitpolicy"

    def policy(**change: Any) -> Object:
        local = {"rules": [{**rule, **change}]}
        return about_web(shop, version, "RateLimitPolicy", xRateLimitHeaders="DraftVersion03", local=local)

    try:
        cluster.apply(policy())
        is_said(shop, kind, "True", "Accepted")
        assert "Accepted" in cluster.call("-n", shop.namespace, "get", "rlp", "web")
        most = 2 * len(waypoints(shop))
        told = calls(shop, address, "/who", most + 20, end_user="one")  # enough to meet every pod of it
        assert [status for status, _ in told].count(200) in range(2, most + 1)
        assert told[-1] == (429, "0")
        for each in (address, *more):
            assert statuses(shop, each, times=most + 4) == [200] * (most + 4), "who is no user has no limit"
            assert statuses(shop, each, end_user=f"of {each}") == [200]
        assert f'policy="{shop.namespace}/web"' in pages(shop)

        cluster.apply(policy(clientSelectors=[{"path": {"type": "RegularExpression", "value": "(?=a)"}}]))
        is_said(shop, kind, "False", "Invalid", "clientSelectors[0].path")
        assert statuses(shop, address, times=most + 4, end_user="one")[-1] == 429
    finally:
        cluster.call("-n", shop.namespace, "delete", kind, "web", "--ignore-not-found")
    wait_until("it is over", lambda: statuses(shop, address, times=4, end_user="one") == [200] * 4, SECONDS)


def test_a_client_s_certificate_of_a_secret_is_shown_and_changed_and_what_is_missing_refuses(
    shop: Apps,
) -> None:
    """Only of the Secrets that the control plane may read, each by its name."""
    cluster, issuer, where = shop.cluster, secrets.Issuer(), shop.namespace
    shop.start(secrets.server(shop, cluster.nodes()[-1], issuer), shop.service("secure", "secure"))
    addresses = shop.service_addresses("secure")

    def is_told(*texts: str) -> bool:
        status, reason, text = condition(shop, "destinationrule", "secure", "WaypointAccepted")
        return (status, reason) == ("False", "InvalidCertificateRef") and all(one in text for one in texts)

    def is_seen(client: str, at: str) -> bool:
        return f'"client": "{client}"' in shop.python("a", CALL, at, 80, 5, "/")

    cluster.apply(secrets.rule(shop))
    wait_until("the right is missing", lambda: is_told("'client'", "needs RBAC: list secrets"), SECONDS)
    assert statuses(shop, addresses[0]) == [503]
    cluster.apply(*secrets.rights(shop))
    # A right that comes is noticed when it is asked for the next time, after half a minute at the latest.
    wait_until("the Secret is missing", lambda: is_told(f"there is no Secret {where}/client"), SCALED_SECONDS)
    assert statuses(shop, addresses[0]) == [503]
    for client in ("one", "two"):
        cluster.apply(secrets.secret(shop, issuer, client))
        for address in addresses:
            wait_until(f"{client} calls", lambda at=address, name=client: is_seen(name, at), SECONDS)
    wait_until("nothing is missing any more", lambda: not is_told(), SECONDS)
    cluster.call("-n", where, "delete", "secret", "client")
    for address in addresses:
        wait_until("nobody is called", lambda at=address: statuses(shop, at) == [503], SECONDS)
    cluster.call("-n", where, "delete", "destinationrule", "secure")


def test_a_gateway_s_parameters_and_its_autoscaler_hold_and_what_reaches_for_the_node_is_refused(
    shop: Apps,
) -> None:
    """From two pods by annotation to three by an autoscaler, with none the fewer in between. What a ConfigMap
    says for all of the class counts below what the Gateway's own says."""
    cluster, name = shop.cluster, shop.namespace
    cluster.apply(class_defaults())
    wait_until("its two are there", lambda: len(waypoints(shop)) == 2, SECONDS)
    with shop.running("a", LOAD, shop.service_addresses("web")[0], 80, 0.05) as load:
        numbers = set()

        def is_changed() -> bool:
            spec = cluster.get("deployment", "wp", name)["spec"]
            numbers.add(spec["replicas"])
            return spec["template"]["metadata"].get("annotations", {}).get(TEAM) == "web"

        wait_until("the class's hold", lambda: annotations(shop).get(TEAM) == "all", SECONDS)
        cluster.apply(parameters(shop, SCALED), gateway(shop, "wp-parameters"))
        wait_until("its pods are others", is_changed, SECONDS, 0.02)
        assert is_changed()
        assert numbers <= {2, 3}
        assert annotations(shop)[OF_CLASS] == "all"
        budget = json.loads(cluster.call("-n", name, "get", "poddisruptionbudget", "wp", "-o", "json"))
        assert budget["spec"]["minAvailable"] == 1
        assert "maxUnavailable" not in budget["spec"]

        reaching = {**SCALED, "deployment": "spec: {template: {spec: {hostNetwork: true}}}"}
        cluster.apply(parameters(shop, reaching))
        refused = wait_until("it is refused", lambda: refusal(shop), SECONDS)
        assert "hostNetwork: a waypoint gets nothing of its node by a ConfigMap" in refused
        wait_until("the autoscaler wants three", lambda: replicas(shop) == 3, SCALED_SECONDS)
        wait_until("there are three", lambda: len(waypoints(shop)) == 3 and are_new(shop), SCALED_SECONDS)
        cluster.apply(parameters(shop, SCALED))
        wait_until("it is accepted again", lambda: not refusal(shop), SECONDS)
        # Whatever has it all applied again leaves the autoscaler's number alone.
        cluster.call("-n", name, "label", "deployment", "wp", "example.org/touched=yes")
        cluster.call("-n", name, "delete", "poddisruptionbudget", "wp")
        wait_until("what was deleted is there again", lambda: has_budget(shop), SECONDS)
        assert replicas(shop) == 3
        cluster.delete("configmap", DEFAULTS, SYSTEM)
        wait_until(
            "nothing is left of the class's", lambda: OF_CLASS not in annotations(shop), SCALED_SECONDS
        )
        said = load.end()
    assert (said["failed"], said["seen"] > 100) == (0, True), said


def class_defaults() -> Object:
    meta = {"name": DEFAULTS, "namespace": SYSTEM, "labels": {"gateway.istio.io/defaults-for-class": CLASS}}
    overlay = f"spec: {{template: {{metadata: {{annotations: {{{TEAM}: all, {OF_CLASS}: all}}}}}}}}"
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"deployment": overlay}}


def annotations(shop: Apps) -> dict[str, str]:
    """Of the pods that are made for it."""
    spec = shop.cluster.get("deployment", "wp", shop.namespace)["spec"]
    return dict(spec["template"]["metadata"].get("annotations", {}))


def replicas(shop: Apps) -> int:
    """As many as the Deployment is to have; a pod more may be there while others take turns."""
    return int(shop.cluster.get("deployment", "wp", shop.namespace)["spec"]["replicas"])


def are_new(shop: Apps) -> bool:
    """Whether all pods are as the parameters want them."""
    return all(
        pod["metadata"]["annotations"].get(TEAM) == "web"
        and {"name": "LOG_LEVEL", "value": "info"} in pod["spec"]["containers"][0]["env"]
        for pod in waypoints(shop)
    )


def refusal(shop: Apps) -> str:
    """Why the Gateway is not accepted; empty: it is."""
    status, _, text = condition(shop, "gateway", "wp", "Accepted")
    return text if status == "False" else ""


def has_budget(shop: Apps) -> bool:
    return "wp" in shop.cluster.call("-n", shop.namespace, "get", "poddisruptionbudgets", "-o", "name")
