"""One cluster and one installation for all tests here, in the order of their files."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.cluster.apps import Apps, namespace
from tests.cluster.cluster import (
    KIT,
    Cluster,
    ClusterError,
    Object,
    open_cluster,
    provision,
    run,
)

SYSTEM = "ztunnel-system"
TAINT = "ztunnel.io/not-ready"
"""Of new nodes, which the control plane takes off."""
READY_SECONDS = 60
GRACE = 12
"""Of the node proxies here: what lives on in a replaced one has five seconds less to end, in which it leaves
its listeners to the next one. Of ten seconds it would have one."""
VALUES = (f"node.terminationGracePeriodSeconds={GRACE}", f"control.nodeTaint={TAINT}")
"""Of the chart, in all tests."""


@dataclass
class Mesh:
    """An installation by the chart.

    Attributes:
        ready_seconds: from the command to all of it ready.
    """

    cluster: Cluster
    ready_seconds: float = 0.0

    def install(self, *values: str) -> None:
        """Install, or upgrade, with these values of the chart, and wait until it is ready."""
        began, config = time.monotonic(), self.cluster.config
        flags = " ".join(f"--set {each}" for each in (*VALUES, *values))
        try:
            provision(self.cluster.image, self.cluster.kit, "install", config=config, flags=flags)
        except ClusterError as error:
            raise ClusterError(f"{error}\n{self.describe()}") from error
        self.ready_seconds = time.monotonic() - began

    def wait(self, seconds: float = 180) -> None:
        """Until every pod of the newest version is ready."""
        for what in ("deployment/ztunnel-control", "daemonset/ztunnel"):
            words = ["-n", SYSTEM, "rollout", "status", what, f"--timeout={seconds:.0f}s"]
            try:
                self.cluster.call(*words, timeout=seconds + 10)
            except ClusterError as error:
                raise ClusterError(f"{error}\n{self.describe()}") from error

    def uninstall(self) -> None:
        self.cluster.call_helm("uninstall", "ztunnel", "-n", SYSTEM, "--wait", "--ignore-not-found")

    def pods(self, component: str) -> list[Object]:
        return self.cluster.pods(SYSTEM, f"app.kubernetes.io/component={component}")

    def logs(self, component: str, tail: int = -1) -> str:
        """Of every pod of it."""
        return "\n".join(
            f"-- {each['metadata']['name']}\n{self.cluster.logs(each, tail)}" for each in self.pods(component)
        )

    def describe(self) -> str:
        """For whoever reads why it is not ready."""
        words = ("-n", SYSTEM, "get", "pods,events", "--sort-by=.metadata.creationTimestamp")
        state = self.cluster.call(*words, check=False)
        return f"{state[-4000:]}\n{self.logs('control', 20)}\n{self.logs('node', 20)}"

    def dump(self, node: str) -> str:
        """What the proxy there knows, from its admin page."""
        code = "import urllib.request as u; print(u.urlopen('http://localhost:15000/config_dump').read().decode())"
        words = ("-n", SYSTEM, "exec", self.cluster.proxy_on(node), "--", "python3", "-c", code)
        return self.cluster.call(*words)

    def count(self, node: str, metric: str, **labels: str) -> float:
        """The sum of a metric's samples with these labels on a node."""
        total = 0.0
        for line in self.cluster.scrape(self.cluster.proxy_on(node), 15020).splitlines():
            named = line.partition("{")[0].partition(" ")[0]
            if named == metric and all(f'{name}="{value}"' in line for name, value in labels.items()):
                total += float(line.rpartition(" ")[2])
        return total


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How long each file took: the whole is to be over in a quarter of an hour."""
    seconds = Counter[str]()
    for reports in terminalreporter.stats.values():
        for each in reports:
            if isinstance(each, pytest.TestReport):
                seconds[each.nodeid.partition("::")[0]] += each.duration
    for name, took in sorted(seconds.items()):
        terminalreporter.write_line(f"{took:7.1f} s  {name}")


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    yield from open_cluster()


@pytest.fixture(scope="session")
def definitions(cluster: Cluster) -> None:
    """The custom resources of Istio, which a mesh can do without and these tests cannot."""
    if "authorizationpolicies" not in cluster.call("api-resources", "--api-group=security.istio.io"):
        assert cluster.kit, "the cluster of KUBECONFIG lacks Istio's CustomResourceDefinitions"
        run(KIT, "crds", timeout=120)


@pytest.fixture(scope="session")
def mesh(cluster: Cluster, definitions: None) -> Iterator[Mesh]:
    """Installed; removed at the end, unless a test has done so. ZTUNNEL_INSTALLED=1: one that is there is
    taken as it is, and left so."""
    made = Mesh(cluster)
    if os.environ.get("ZTUNNEL_INSTALLED"):
        made.wait()
        yield made
        return
    try:
        made.install()
        yield made
    finally:
        made.uninstall()
        cluster.call("delete", "namespace", SYSTEM, "--ignore-not-found", "--wait", timeout=120)


@pytest.fixture
def apps(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[Apps]:
    """A namespace of the test's own, not in the mesh."""
    with namespace(cluster, f"ztunnel-test-{os.getpid()}-{abs(hash(request.node.name)) % 100000}") as made:
        yield made


@pytest.fixture(scope="session")
def nodes(cluster: Cluster) -> tuple[str, str]:
    """Two of them; the same one twice where there is only one."""
    found = cluster.nodes()
    return found[0], found[-1]
