"""Asks the node proxy that an operator means: at an address, of a laboratory, or of a cluster."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from ztunnel.analyze.fetch import NoAnswer, fetch
from ztunnel.analyze.forward import NAMESPACE, NoCluster, forwarded, node_pods, pod_on
from ztunnel.demo.call import get
from ztunnel.demo.failure import LaboratoryFailed
from ztunnel.demo.names import Names

ADMIN_PORT = 15000
METRICS_PORT, READINESS_PORT = 15020, 15021


@dataclass(frozen=True, slots=True)
class Place:
    """Which node proxy.

    Attributes:
        admin: `host:port` or a URL of its admin page; then nothing else counts.
        pod: its pod in a cluster.
        node: its node, of the laboratory if that has one of this name, else of the cluster.
        laboratory: the name of the laboratory.
        namespace: where node proxies run in the cluster.
    """

    admin: str = ""
    pod: str = ""
    node: str = ""
    laboratory: str = "lab"
    namespace: str = NAMESPACE


def ask(place: Place, path: str, port: int = ADMIN_PORT) -> str:
    """The body of a page; an address is asked as it is, whatever `port` says.

    Raises:
        NoAnswer: says who was asked, and why there is no answer.
    """
    if place.admin:
        return fetch(place.admin, path)
    if not place.pod and is_of_laboratory(place):
        try:
            status, text = get(_namespace(place), port, path)
        except LaboratoryFailed as error:
            raise NoAnswer(str(error)) from error
        if status != 200:
            raise NoAnswer(f"{place.node}: {text.strip()}")
        return text
    try:
        pod = place.pod or pod_on(place.node, place.namespace)
        with forwarded(pod, port, place.namespace) as address:
            return fetch(address, path)
    except NoCluster as error:
        there = "" if place.pod else ", ".join(_of_laboratory(place))
        known = f"no node {place.node!r} in laboratory {place.laboratory!r} (there are: {there}); "
        raise NoAnswer(f"{known if there else ''}{error}") from error


def nodes_of(place: Place, *, cluster: bool = False) -> list[Place]:
    """Every node proxy of the laboratory, or where there is none of this name or it is asked for, of the
    cluster.

    Raises:
        NoAnswer: the cluster cannot be asked.
    """
    found = _of_laboratory(place)
    if found and not cluster:
        return [replace(place, node=node) for node in found]
    try:
        pods = node_pods(place.namespace)
    except NoCluster as error:
        raise NoAnswer(str(error)) from error
    return [replace(place, node=node, pod=pod) for node, pod in sorted(pods.items())]


def _of_laboratory(place: Place) -> list[str]:
    """The nodes of the laboratory; none where there is none of this name."""
    names = Names(place.laboratory, Path("/"))
    prefix = names.node("")
    return sorted(each.name.removeprefix(prefix) for each in names.netns("x").parent.glob(f"{prefix}*"))


def is_of_laboratory(place: Place) -> bool:
    """Whether the laboratory has this node."""
    return _namespace(place).exists()


def _namespace(place: Place) -> Path:
    names = Names(place.laboratory, Path("/"))  # cgroups do not matter here
    return names.netns(names.node(place.node))
