"""The pods that are in the mesh by a node proxy, as a message to its control plane."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from google.protobuf.message import DecodeError

from ztunnel.errors import PeerError
from ztunnel.xds.pb.enrolment_pb2 import EnrolledPods, Noted, Pod

PATH: Final = "/ztunnel.v1.EnrolmentService/ReportEnrolled"
MOST_BYTES: Final = 1 << 20
"""Of a message; a pod takes some 80 of them, at most 550."""
MOST_PODS: Final = 2000
"""Of one node; a kubelet takes 110, where nobody has raised that."""
NOTED: Final = Noted().SerializeToString()
_MOST_TEXT: Final = 253


class EnrolledPod(NamedTuple):
    """A pod by its names, and by what the kubelet knows it by."""

    namespace: str
    name: str
    uid: str


def render_pods(pods: Iterable[EnrolledPod]) -> bytes:
    """The message of these pods."""
    return EnrolledPods(
        pods=[Pod(namespace=one.namespace, name=one.name, uid=one.uid) for one in sorted(pods)]
    ).SerializeToString()


def parse_pods(untrusted: bytes) -> frozenset[EnrolledPod]:
    """The pods of a message.

    Raises:
        PeerError: it is none, or names a pod that cannot be.
    """
    if len(untrusted) > MOST_BYTES:
        raise PeerError(f"a message of {len(untrusted)} bytes; {MOST_BYTES} are accepted")
    try:
        message = EnrolledPods.FromString(untrusted)
    except DecodeError as error:
        raise PeerError("not an EnrolledPods") from error
    pods = [EnrolledPod(one.namespace, one.name, one.uid) for one in message.pods]
    if len(pods) > MOST_PODS:
        raise PeerError(f"{len(pods)} pods on one node; {MOST_PODS} are accepted")
    for one in pods:
        if not all(0 < len(text) <= _MOST_TEXT for text in one):
            raise PeerError("a pod has a namespace, a name and a UID")
    return frozenset(pods)
