"""The labels of Istio's TCP metrics, in the order in which Istio's ztunnel declares them.

Source: ztunnel src/proxy/metrics.rs `CommonTrafficLabels`. A value that is not known is `unknown`; no label
is ever left out, because Prometheus treats a missing label as another series.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple

from ztunnel.errors import Flag
from ztunnel.model.connection import Direction, Security
from ztunnel.model.identity import SpiffeId
from ztunnel.model.service import Service
from ztunnel.model.workload import Workload

UNKNOWN: Final = "unknown"


class Reporter(StrEnum):
    """Which end of the connection reports it."""

    SOURCE = "source"
    DESTINATION = "destination"
    WAYPOINT = "waypoint"

    @property
    def direction(self) -> Direction:
        """The direction as the access log calls it."""
        return Direction.OUTBOUND if self is Reporter.SOURCE else Direction.INBOUND


ENDS: Final = (Reporter.SOURCE, Reporter.DESTINATION)
"""Of every connection; a waypoint is none."""


class TcpLabels(NamedTuple):
    """One label set; the field names are the label names, the values what Prometheus gets."""

    reporter: str
    source_workload: str = UNKNOWN
    source_canonical_service: str = UNKNOWN
    source_canonical_revision: str = UNKNOWN
    source_workload_namespace: str = UNKNOWN
    source_principal: str = UNKNOWN
    source_app: str = UNKNOWN
    source_version: str = UNKNOWN
    source_cluster: str = UNKNOWN
    destination_service: str = UNKNOWN
    destination_service_namespace: str = UNKNOWN
    destination_service_name: str = UNKNOWN
    destination_workload: str = UNKNOWN
    destination_canonical_service: str = UNKNOWN
    destination_canonical_revision: str = UNKNOWN
    destination_workload_namespace: str = UNKNOWN
    destination_principal: str = UNKNOWN
    destination_app: str = UNKNOWN
    destination_version: str = UNKNOWN
    destination_cluster: str = UNKNOWN
    request_protocol: str = "tcp"
    response_flags: str = Flag.NONE.value
    connection_security_policy: str = Security.UNKNOWN.value
    source_region: str = UNKNOWN
    source_zone: str = UNKNOWN
    destination_region: str = UNKNOWN
    destination_zone: str = UNKNOWN

    def flagged(self, flag: Flag) -> TcpLabels:
        """The same connection with another response flag."""
        return self._replace(response_flags=flag.value)


class _End(NamedTuple):
    workload: str
    canonical_service: str
    canonical_revision: str
    namespace: str
    principal: str
    cluster: str
    region: str
    zone: str


def _end(workload: Workload | None, identity: SpiffeId | None) -> _End:
    principal = str(identity) if identity else UNKNOWN
    if workload is None:
        return _End(UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, principal, UNKNOWN, UNKNOWN, UNKNOWN)
    return _End(
        workload.workload_name or UNKNOWN,
        workload.canonical_name or UNKNOWN,
        workload.canonical_revision or UNKNOWN,
        workload.namespace or UNKNOWN,
        principal,
        workload.cluster or UNKNOWN,
        workload.locality.region or UNKNOWN,
        workload.locality.zone or UNKNOWN,
    )


def tcp_labels(  # noqa: PLR0913 (a type of its own for these eight would say nothing more)
    reporter: Reporter,
    source: Workload | None,
    destination: Workload | None,
    service: Service | None,
    source_identity: SpiffeId | None,
    destination_identity: SpiffeId | None,
    security: Security,
    flag: Flag = Flag.NONE,
) -> TcpLabels:
    """The labels of one connection.

    Args:
        source_identity: what TLS, or on one node the kernel, proved; an address alone proves none.
        destination_identity: the same of the other end.
        service: the service that was called, if it was one. Its name is the one that its resource has, which
            for a Kubernetes Service is the first label of the hostname.
    """
    a = _end(source, source_identity)
    b = _end(destination, destination_identity)
    hostname = (service.hostname if service else "") or UNKNOWN
    return TcpLabels(
        reporter.value,
        *(a.workload, a.canonical_service, a.canonical_revision, a.namespace, a.principal),
        *(a.canonical_service, a.canonical_revision, a.cluster),
        *(hostname, (service.namespace if service else "") or UNKNOWN),
        (service.name or hostname.partition(".")[0]) if service else UNKNOWN,
        *(b.workload, b.canonical_service, b.canonical_revision, b.namespace, b.principal),
        *(b.canonical_service, b.canonical_revision, b.cluster),
        *("tcp", flag.value, security.value),
        *(a.region, a.zone, b.region, b.zone),
    )
