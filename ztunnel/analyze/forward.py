"""Reaches a port of a pod that listens on the pod's own loopback only, through the Kubernetes API.

`kubectl port-forward` does it, as `istioctl` does: it has the user's own credentials, plugins and proxies."""

from __future__ import annotations

import json
import re
import select
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

NAMESPACE: Final = "ztunnel-system"
NODE: Final = "app.kubernetes.io/component=node"
CONTROL: Final = "app.kubernetes.io/component=control"
HOLDER: Final = "app.kubernetes.io/component=holder"
_LOGGED = re.compile(r"[EWIF]\d{4} \d\d:\d\d:\d\d\.\d+ ")
"""How a line of klog begins: what kubectl's libraries have to say, several times, before kubectl says it."""
_FORWARDING = re.compile(r"Forwarding from 127\.0\.0\.1:(\d+) ->")
_SECONDS = 20.0


class NoCluster(Exception):
    """The cluster cannot be asked; the message says why, in kubectl's words where it has some."""


def list_pods(namespace: str, selector: str) -> list[dict[str, Any]]:
    """The pods with these labels, as the API has them. Raises NoCluster."""
    words = ["-n", namespace, "get", "pods", "-l", selector, "-o", "json"]
    try:
        found: dict[str, Any] = json.loads(kubectl(words))
    except ValueError as error:
        raise NoCluster(f"kubectl {' '.join(words)}: {error}") from error
    return list(found.get("items") or ())


def node_pods(namespace: str = NAMESPACE) -> dict[str, str]:
    """The pods of our node proxies that run, by node. Raises NoCluster."""
    pods = list_pods(namespace, NODE)
    running = [one for one in pods if one.get("status", {}).get("phase") == "Running"]
    return {one["spec"].get("nodeName", ""): one["metadata"]["name"] for one in running}


def pod_on(node: str, namespace: str = NAMESPACE) -> str:
    """The node proxy's pod on a node. Raises NoCluster: none runs there; names the nodes where one does."""
    pods = node_pods(namespace)
    if node not in pods:
        there = f"there are: {', '.join(sorted(pods))}" if pods else "there are none"
        raise NoCluster(f"no node proxy runs on {node} in namespace {namespace}; {there}")
    return pods[node]


@contextmanager
def forwarded(pod: str, port: int, namespace: str = NAMESPACE) -> Iterator[str]:
    """`127.0.0.1:<port>` here, which is `port` on the loopback of the pod, while the context lasts.

    Raises:
        NoCluster: there is no kubectl, no such pod, or no answer within 20 s.
    """
    words = [_found(), "-n", namespace, "port-forward", f"pod/{pod}", f":{port}"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield f"127.0.0.1:{_local_port(process, ' '.join(words[1:]))}"
        finally:
            process.terminate()


def _local_port(process: subprocess.Popen[str], command: str) -> str:
    assert process.stdout is not None
    assert process.stderr is not None
    readable, _, _ = select.select([process.stdout, process.stderr], (), (), _SECONDS)
    match = _FORWARDING.match(process.stdout.readline()) if process.stdout in readable else None
    if match is None:
        process.terminate()
        said = _said(process.stderr.read()) if readable else f"no answer within {_SECONDS:.0f} s"
        raise NoCluster(f"kubectl {command}: {said or 'ended without a word'}")
    return match[1]


def kubectl(words: Sequence[str], stdin: str | None = None) -> str:
    """What kubectl prints. Raises NoCluster, with what it says instead."""
    try:
        done = subprocess.run(
            [_found(), *words], input=stdin, capture_output=True, text=True, timeout=_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise NoCluster(f"kubectl {' '.join(words)}: no answer within {_SECONDS:.0f} s") from error
    if done.returncode:
        raise NoCluster(f"kubectl {' '.join(words)}: {_said(done.stderr)}")
    return done.stdout


def _said(text: str) -> str:
    """In kubectl's own words; in those of its libraries where it has none."""
    lines = text.strip().splitlines()
    return "\n".join([line for line in lines if not _LOGGED.match(line)] or lines)


def _found() -> str:
    path = shutil.which("kubectl")
    if path is None:
        raise NoCluster("kubectl is not in PATH: it is what asks the cluster, with your own credentials")
    return path
