"""A cluster by its KUBECONFIG, or the one that ../shared/kube brings up."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from tests.cluster.api import KINDS, Api, ApiError
from tests.cluster.api import Object as Object

ROOT = Path(__file__).parents[2]
KIT = ROOT.parent / "shared" / "kube" / "kube"
KIT_CONFIG = Path(os.environ.get("MESHKUBE_STATE", "/var/lib/meshkube"), "kubeconfig")
CHART = ROOT / "deploy" / "charts" / "ztunnel"
T = TypeVar("T")


class ClusterError(Exception):
    """A command failed; what it said."""


def run(*words: object, stdin: str | None = None, timeout: float = 60, check: bool = True) -> str:
    """What a command printed. Raises ClusterError."""
    argv = [str(word) for word in words]
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=timeout)
    if check and done.returncode:
        raise ClusterError(
            f"{' '.join(argv)[:200]}: exit {done.returncode}\n{(done.stdout + done.stderr)[-3000:]}"
        )
    return done.stdout if check else done.stdout + done.stderr


def wait_until(what: str, look: Callable[[], T | None], seconds: float = 60, pause: float = 0.1) -> T:
    """The first answer of `look` that is something. Raises ClusterError after so long."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            raise ClusterError(f"not within {seconds:.0f} s: {what}")
        time.sleep(pause)


@dataclass
class Cluster:
    """
    Attributes:
        image: repository and tag, which the nodes have; the loader's repository ends with -loader.
        kit: whether it is the one of ../shared/kube, where images are built and nodes can be entered.
        leaving: namespaces that are being deleted, whose pods nobody has waited for.
    """

    config: Path
    kubectl: list[str]
    helm: list[str]
    image: tuple[str, str]
    kit: bool
    took: dict[str, float] = field(default_factory=dict)
    leaving: list[str] = field(default_factory=list)

    @cached_property
    def api(self) -> Api:
        return Api(self.config)

    def close(self) -> None:
        """Nothing more is asked."""
        self.api.close()

    def wait_until_left(self) -> None:
        """Until there is no pod in namespaces that are being deleted."""
        for each in self.leaving:
            wait_until(f"no pod is left in {each}", lambda each=each: not self.pods(each), 120, 0.2)

    def call(self, *words: object, stdin: str | None = None, timeout: float = 60, check: bool = True) -> str:
        """kubectl."""
        return run(
            *self.kubectl, "--kubeconfig", self.config, *words, stdin=stdin, timeout=timeout, check=check
        )

    def call_helm(self, *words: object, timeout: float = 180) -> str:
        return run(*self.helm, "--kubeconfig", self.config, *words, timeout=timeout)

    def exec_words(self, namespace: str, pod: str) -> list[str]:
        """What runs the words that are put after it in a pod, with standard input."""
        return [*self.kubectl, "--kubeconfig", str(self.config), "-n", namespace, "exec", "-i", pod, "--"]

    def popen(self, *words: object) -> subprocess.Popen[str]:
        """kubectl, with pipes."""
        argv = [*self.kubectl, "--kubeconfig", str(self.config), *map(str, words)]
        pipe = subprocess.PIPE
        return subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, text=True)

    def get(self, kind: str, name: str = "", namespace: str = "", selector: str = "") -> Object:
        """One object, or a list."""
        if kind in KINDS:
            try:
                return self.api.get(kind, name, namespace, selector)
            except ApiError as error:
                raise ClusterError(str(error)) from error
        words = [kind, *([name] if name else []), "-o", "json"]
        words += ["-n", namespace] if namespace else []
        words += ["-l", selector] if selector else []
        found: Object = json.loads(self.call("get", *words))
        return found

    def apply(self, *objects: Object) -> None:
        for each in objects:
            try:
                self.api.apply(each)
            except ApiError as error:
                raise ClusterError(str(error)) from error

    def patch(self, kind: str, name: str, change: Object, namespace: str = "") -> None:
        """By a merge patch, of a kind that the API's words know."""
        try:
            self.api.patch(kind, name, change, namespace)
        except ApiError as error:
            raise ClusterError(str(error)) from error

    def delete(self, kind: str, name: str, namespace: str = "") -> None:
        """What may not be there, without waiting for its end."""
        try:
            self.api.delete(kind, name, namespace)
        except ApiError as error:
            raise ClusterError(str(error)) from error

    def ztunnel(self, *words: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """The program of this checkout, as an operator runs it, with kubectl and helm in PATH."""
        tools = f"{KIT_CONFIG.parent / 'cache' / 'bin'}:" if self.kit else ""
        env = {**os.environ, "KUBECONFIG": str(self.config), "PATH": f"{tools}{os.environ['PATH']}"}
        argv = [sys.executable, "-m", "ztunnel", *words]
        return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=timeout)

    def nodes(self) -> list[str]:
        """Those that pods run on, by name."""
        return sorted(each["metadata"]["name"] for each in self.get("nodes")["items"])

    def pods(self, namespace: str, selector: str = "") -> list[Object]:
        found: list[Object] = self.get("pods", namespace=namespace, selector=selector)["items"]
        return found

    def proxy_on(self, node: str) -> str:
        """The name of the node proxy's pod there that is ready, newest first."""
        found = [
            each
            for each in self.pods("ztunnel-system", "app.kubernetes.io/component=node")
            if each["spec"].get("nodeName") == node and is_ready(each)
        ]
        found.sort(key=lambda each: str(each["metadata"]["creationTimestamp"]))
        return str(found[-1]["metadata"]["name"])

    def on_node(self, node: str, *words: object) -> str:
        """What a command on a node of ../shared/kube printed."""
        assert self.kit
        return run(KIT, "exec-node", node, *words)

    def scrape(self, pod: str, port: int, path: str = "/metrics", namespace: str = "ztunnel-system") -> str:
        """A page of a pod of ours, through the API server."""
        try:
            return self.api.text(f"/api/v1/namespaces/{namespace}/pods/{pod}:{port}/proxy{path}")
        except ApiError as error:
            raise ClusterError(str(error)) from error

    def logs(self, pod: Object, tail: int = -1) -> str:
        """Of all its containers, as far as they have begun; each with its last `tail` lines."""
        meta, spec = pod["metadata"], pod["spec"]
        limit = {"tailLines": str(tail)} if tail >= 0 else {}
        found = []
        for each in [*spec.get("initContainers", []), *spec["containers"]]:
            path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}/log"
            try:
                found.append(self.api.text(path, container=each["name"], **limit))
            except ApiError as error:
                found.append(f"{each['name']}: {error}")
        return "\n".join(found)


def is_ready(pod: Object) -> bool:
    conditions = pod.get("status", {}).get("conditions", [])
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def families(pod: Object) -> list[str]:
    """Its addresses."""
    return [each["ip"] for each in pod["status"].get("podIPs", [])]


def open_cluster() -> Iterator[Cluster]:
    """That of KUBECONFIG; else that of ../shared/kube, which is taken down again where it was not up."""
    image = os.environ.get("ZTUNNEL_IMAGE", "")
    repository, _, tag = image.rpartition(":")
    given = os.environ.get("KUBECONFIG", "")
    if given and Path(given) != KIT_CONFIG:
        if not image:
            raise ClusterError("ZTUNNEL_IMAGE=repository:tag: which image do the nodes of KUBECONFIG have?")
        tools = [shutil.which(name) for name in ("kubectl", "helm")]
        kubectl, helm = (
            [tool] if tool else [str(KIT), name]
            for tool, name in zip(tools, ("kubectl", "helm"), strict=True)
        )
        with closing(Cluster(Path(given), kubectl, helm, (repository, tag), False)) as made:
            yield made
            made.wait_until_left()
        return
    if not KIT.exists():
        raise ClusterError("NO CLUSTER: neither KUBECONFIG nor ../shared/kube is here")
    began = time.monotonic()
    was_up = is_up()
    if not was_up:
        run(KIT, "up", "--dual-stack", timeout=300)
    made = Cluster(KIT_CONFIG, kit_kubectl(), [str(KIT), "helm"], (repository, tag), True)
    made.took["cluster"] = time.monotonic() - began
    try:
        if not image:
            made.image = ("localhost/ztunnel-test/ztunnel", "test")
            began = time.monotonic()
            with subprocess.Popen([KIT, "crds"], stdout=subprocess.DEVNULL) as definitions:
                provision(made.image, True, "images")
            made.took["images"] = time.monotonic() - began
            if definitions.returncode:
                raise ClusterError(f"{KIT} crds: exit {definitions.returncode}")
        yield made
        made.wait_until_left()
    finally:
        made.close()
        if not was_up:
            run(KIT, "down", timeout=120)


def kit_kubectl() -> list[str]:
    """Its own, without what the kit does around it for those who have set nothing up."""
    own = KIT_CONFIG.parent / "cache" / "bin" / "kubectl"
    return [str(own)] if own.exists() else [str(KIT), "kubectl"]


def is_up() -> bool:
    """Whether the cluster of ../shared/kube is, with nothing wrong; `up` replaces one with which something
    is."""
    return subprocess.run([KIT, "status"], capture_output=True, timeout=60).returncode == 0


def provision(
    cluster_image: tuple[str, str], kit: bool, *words: str, config: Path | None = None, flags: str = ""
) -> str:
    """`deploy/provision`, as whoever sets up a machine calls it; `flags` are more words for helm."""
    env = {**os.environ, "IMAGE": ":".join(cluster_image), "CLUSTER": "kube" if kit else "other"}
    env["HELM_FLAGS"] = f"{os.environ.get('HELM_FLAGS', '')} {flags}".strip()
    env.setdefault("PIP_CERT", "/etc/ssl/certs/ca-certificates.crt")
    if config:
        env["KUBECONFIG"] = str(config)
    argv = [str(ROOT / "deploy/provision"), *words]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=1500, env=env)
    if done.returncode:
        raise ClusterError(f"deploy/provision {' '.join(words)}: {(done.stdout + done.stderr)[-4000:]}")
    return done.stdout
