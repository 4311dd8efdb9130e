"""Claim 3: PeerAuthentication and AuthorizationPolicy, and changes of them, are in force at once."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cluster.apps import HOLD, PORT, Apps, namespace
from tests.cluster.cluster import Cluster, wait_until
from tests.cluster.conftest import Mesh

pytestmark = pytest.mark.timeout(300)

SECONDS = 10


def strict(apps: Apps, mode: str) -> dict[str, Any]:
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "PeerAuthentication",
        "metadata": {"name": "default", "namespace": apps.namespace},
        "spec": {"mtls": {"mode": mode}},
    }


def allow(apps: Apps, account: str) -> dict[str, Any]:
    principal = f"cluster.local/ns/{apps.namespace}/sa/{account}"
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": "callers", "namespace": apps.namespace},
        "spec": {
            "selector": {"matchLabels": {"app": "b"}},
            "action": "ALLOW",
            "rules": [{"from": [{"source": {"principals": [principal]}}]}],
        },
    }


def answered(apps: Apps, pod: str, address: str) -> bool:
    return "pod" in apps.call(pod, address)


def test_strict_refuses_who_has_no_identity_and_probes_go_on(
    mesh: Mesh, cluster: Cluster, apps: Apps, nodes: tuple[str, str]
) -> None:
    apps.label("ambient")
    apps.start(apps.server("a", nodes[0]), apps.server("b", nodes[1]))
    with namespace(cluster, f"{apps.namespace}-out") as outside:
        outside.start(outside.server("x", nodes[0]))
        for address in apps.addresses("b"):
            assert answered(outside, "x", address)
        cluster.apply(strict(apps, "STRICT"))
        for address in apps.addresses("b"):
            wait_until("plaintext is refused", lambda a=address: not answered(outside, "x", a), SECONDS)
            assert answered(apps, "a", address)
        wait_until("it is counted", lambda: refused(mesh, nodes[1]), SECONDS)
        cluster.apply(strict(apps, "PERMISSIVE"))
        for address in apps.addresses("b"):
            wait_until("plaintext is admitted again", lambda a=address: answered(outside, "x", a), SECONDS)
    [status] = apps.pod("b")["status"]["containerStatuses"]
    assert (status["restartCount"], status["ready"]) == (0, True)


def refused(mesh: Mesh, node: str) -> float:
    return mesh.count(node, "ztunnel_policy_denials_total", reporter="destination")


@pytest.mark.parametrize("same_node", [False, True], ids=["two nodes", "one node"])
def test_who_may_call_is_changed_while_connections_live(
    mesh: Mesh, cluster: Cluster, apps: Apps, nodes: tuple[str, str], same_node: bool
) -> None:
    apps.label("ambient")
    where = nodes[0] if same_node else nodes[1]
    apps.start(
        apps.account("one"),
        apps.account("two"),
        apps.server("a", nodes[0], account="one"),
        apps.server("c", nodes[0], account="two"),
        apps.server("b", where),
    )
    address = apps.addresses("b")[0]
    wait_until("both may", lambda: answered(apps, "a", address) and answered(apps, "c", address), SECONDS)
    with apps.running("a", HOLD, address, PORT) as of_one, apps.running("c", HOLD, address, PORT) as of_two:
        cluster.apply(allow(apps, "two"))
        wait_until("account one is refused", lambda: not answered(apps, "a", address), SECONDS)
        assert answered(apps, "c", address)
        wait_until("its connection has ended", lambda: of_one.process.poll() is not None, SECONDS)
        cluster.apply(allow(apps, "one"))
        wait_until("account one may again", lambda: answered(apps, "a", address), SECONDS)
        wait_until("account two is refused", lambda: not answered(apps, "c", address), SECONDS)
        wait_until("its connection has ended, too", lambda: of_two.process.poll() is not None, SECONDS)
    assert f"{apps.namespace}/callers" in mesh.logs("node", 400)
