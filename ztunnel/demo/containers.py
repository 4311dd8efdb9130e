"""What the containers of a pod run, serve and answer to probes, as a kubelet reads it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ztunnel.demo.manifest import Manifest, Part
from ztunnel.model.address import IPAddress

_VARIABLE = re.compile(r"\$\(([A-Za-z_][A-Za-z0-9_.-]*)\)|\$\$")


@dataclass(frozen=True, slots=True)
class Probe:
    """A readiness probe: an HTTP GET of `path`, a connection to `port`, or `command`, which is empty else.

    `patience_seconds` is how long it may fail before a pod that starts counts as not ready.
    """

    port: int
    path: str
    command: tuple[str, ...]
    patience_seconds: float

    def __str__(self) -> str:
        if self.command:
            return f"exec {' '.join(self.command)}"
        return f"httpGet :{self.port}{self.path}" if self.path else f"tcpSocket :{self.port}"


@dataclass(frozen=True, slots=True)
class Container:
    """One container. `command` is empty where the image's own would run; `ports` are its TCP ports."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    ports: tuple[int, ...]
    probe: Probe | None


def read_containers(pod: Manifest, addresses: tuple[IPAddress, ...]) -> tuple[Container, ...]:
    """The containers that run beside each other, init containers that stay among them; at least one.

    Raises:
        ConfigError: a field has the wrong type.
    """
    stay = [one for one in pod.parts("spec.initContainers") if one.pull("restartPolicy", str, "") == "Always"]
    places = (*pod.parts("spec.containers"), *stay) or (Part(pod, "spec.containers[0]", {}),)
    return tuple(_container(place, addresses) for place in places)


def named_ports(pod: Manifest) -> dict[str, int]:
    """The numbers of the named ports of all containers; where a name stands twice, the first counts."""
    found: dict[str, int] = {}
    for place in (*pod.parts("spec.containers"), *pod.parts("spec.initContainers")):
        for port in place.parts("ports"):
            name, number = port.pull("name", str, ""), port.pull("containerPort", int, 0)
            if name and port.pull("protocol", str, "TCP") == "TCP":
                found.setdefault(name, number)
    return found


def expand(text: str, environment: Mapping[str, str]) -> str:
    """Kubernetes' `$(NAME)`; `$$` is a dollar, an unknown name stays as it is."""
    return _VARIABLE.sub(lambda m: environment.get(m[1], m[0]) if m[1] else "$", text)


def _container(place: Part, addresses: tuple[IPAddress, ...]) -> Container:
    environment = _environment(place, addresses)
    command = place.pull("command", list, [])
    words = [*command, *place.pull("args", list, [])] if command else []
    tcp = [port for port in place.parts("ports") if port.pull("protocol", str, "TCP") == "TCP"]
    numbers = [port.pull("containerPort", int, 0) for port in tcp]
    return Container(
        place.pull("name", str, ""),
        tuple(expand(str(word), environment) for word in words),
        environment,
        tuple(dict.fromkeys(number for number in numbers if number)),
        _probe(place),
    )


def _probe(place: Part) -> Probe | None:
    """None where a started container counts as ready: without a probe, and with one of gRPC."""
    probe = place.pull("readinessProbe", dict, {})
    if not probe.keys() & {"exec", "httpGet", "tcpSocket"}:
        return None
    kind = next(kind for kind in ("httpGet", "tcpSocket", "exec") if kind in probe)
    port = place.pull(f"readinessProbe.{kind}.port", object, 0)
    if not isinstance(port, int):
        port = named_ports(place.within).get(str(port), int(str(port)) if str(port).isdigit() else 0)
    period = place.pull("readinessProbe.periodSeconds", int, 10)
    tries = place.pull("readinessProbe.failureThreshold", int, 3)
    delay = place.pull("readinessProbe.initialDelaySeconds", int, 0)
    return Probe(
        port,
        place.pull("readinessProbe.httpGet.path", str, "/") if kind == "httpGet" else "",
        tuple(map(str, place.pull("readinessProbe.exec.command", list, []))),
        float(delay + period * tries),
    )


def _environment(container: Part, addresses: tuple[IPAddress, ...]) -> dict[str, str]:
    """The container's own variables after those that tell a pod who it is."""
    manifest = container.within
    known = {
        "metadata.name": manifest.key.name,
        "metadata.namespace": manifest.key.namespace,
        "metadata.uid": manifest.pull("metadata.uid", str, ""),
        "spec.nodeName": manifest.pull("spec.nodeName", str, ""),
        "spec.serviceAccountName": manifest.pull("spec.serviceAccountName", str, ""),
        "status.podIP": str(addresses[0]),
        "status.podIPs": ",".join(map(str, addresses)),
    }
    environment = {
        "POD_NAME": known["metadata.name"],
        "POD_NAMESPACE": known["metadata.namespace"],
        "POD_IP": known["status.podIP"],
        "NODE_NAME": known["spec.nodeName"],
    }
    for variable in container.parts("env"):
        field = variable.pull("valueFrom.fieldRef.fieldPath", str, "")
        value = known.get(field, "") if field else expand(variable.pull("value", str, ""), environment)
        environment[variable.pull("name", str, "")] = value
    return environment
