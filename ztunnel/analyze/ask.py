"""Asks the node proxy that an operator means: at an address, of a laboratory, or of a cluster."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ztunnel.analyze.fetch import NoAnswer, fetch
from ztunnel.analyze.forward import NAMESPACE, NoCluster, forwarded, pod_on
from ztunnel.demo.call import get
from ztunnel.demo.failure import LaboratoryFailed
from ztunnel.demo.names import Names

ADMIN_PORT = 15000


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


def ask(place: Place, path: str) -> str:
    """The body of a page. Raises NoAnswer: says who was asked, and why there is no answer."""
    if place.admin:
        return fetch(place.admin, path)
    if not place.pod and is_of_laboratory(place):
        try:
            status, text = get(_namespace(place), ADMIN_PORT, path)
        except LaboratoryFailed as error:
            raise NoAnswer(str(error)) from error
        if status != 200:
            raise NoAnswer(f"{place.node}: {text.strip()}")
        return text
    try:
        pod = place.pod or pod_on(place.node, place.namespace)
        with forwarded(pod, ADMIN_PORT, place.namespace) as address:
            return fetch(address, path)
    except NoCluster as error:
        raise NoAnswer(str(error)) from error


def is_of_laboratory(place: Place) -> bool:
    """Whether the laboratory has this node."""
    return _namespace(place).exists()


def _namespace(place: Place) -> Path:
    names = Names(place.laboratory, Path("/"))  # cgroups do not matter here
    return names.netns(names.node(place.node))
