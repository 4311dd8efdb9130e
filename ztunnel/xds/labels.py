"""Labels of workloads as messages of ztunnel.http, both ways."""

from __future__ import annotations

from sys import intern

from ztunnel.errors import PeerError
from ztunnel.model.labels import WorkloadLabels
from ztunnel.xds.pb import labels_pb2 as pb


def render_labels(labels: WorkloadLabels) -> pb.WorkloadLabels:
    """The message of a workload's labels."""
    return pb.WorkloadLabels(uid=labels.uid, labels=dict(labels.labels))


def parse_labels(untrusted: pb.WorkloadLabels) -> WorkloadLabels:
    """The labels of a message; equal ones are one object each, as thousands of workloads have them in common.

    Raises:
        PeerError: no uid.
    """
    if not untrusted.uid:
        raise PeerError("labels are those of a workload, by its uid")
    return WorkloadLabels(
        untrusted.uid, frozenset((intern(name), intern(value)) for name, value in untrusted.labels.items())
    )
