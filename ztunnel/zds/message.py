"""What the agent says of pods and what it is answered, one message a packet (istio/ztunnel
proto/zds.proto)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from google.protobuf.message import DecodeError

from ztunnel.errors import PeerError
from ztunnel.xds.pb import zds_pb2

MESSAGE_BYTES: Final = 4096
"""Of one packet: a uid and three names of Kubernetes, which are 253 bytes at most. ztunnel reads 1024."""

_ANSWER_BYTES: Final = 900
"""Of the text of an answer: the agent reads 1024 bytes (istio cni/pkg/nodeagent/ztunnelserver.go, readProto),
and would take more for a broken connection."""

_UID_BYTES: Final = 253


class Named(NamedTuple):
    """A pod, as the world knows it too."""

    name: str
    namespace: str
    service_account: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class Add(NamedTuple):
    """Serve this pod; its network namespace comes with it as a descriptor."""

    uid: str
    pod: Named


class Keep(NamedTuple):
    """Of a snapshot: go on serving this one, whose namespace the agent does not have."""

    uid: str


class Delete(NamedTuple):
    """Serve this one no more."""

    uid: str


@dataclass(frozen=True, slots=True)
class SnapshotSent:
    """All pods have been named: others are served no more."""


Request = Add | Keep | Delete | SnapshotSent


def parse(untrusted: bytes, descriptors: int, truncated: bool = False) -> Request:
    """Read one packet.

    Args:
        descriptors: how many came with it.
        truncated: whether a part of it was lost because it is too long.

    Raises:
        PeerError: it is none, or lacks what it needs; nothing of it counts.
    """
    if truncated or len(untrusted) > MESSAGE_BYTES:
        raise PeerError(f"the message is longer than {MESSAGE_BYTES} bytes, or has too many descriptors")
    try:
        request = zds_pb2.WorkloadRequest.FromString(untrusted)
    except DecodeError as error:
        raise PeerError("the message is no WorkloadRequest") from error
    kind = request.WhichOneof("payload")
    if kind == "add":
        if descriptors != 1:
            raise PeerError(f"AddWorkload comes with one network namespace, this one with {descriptors}")
        return Add(_uid(request.add.uid), _named(request.add))
    if descriptors:
        raise PeerError("a descriptor came with a message that needs none")
    if kind == "keep":
        return Keep(_uid(request.keep.uid))
    if kind == "del":
        return Delete(_uid(getattr(request, "del").uid))
    if kind == "snapshot_sent":
        return SnapshotSent()
    raise PeerError("the message has no payload that is known here: add, keep, del, snapshot_sent")


def render_hello() -> bytes:
    """Our first message: the version that we speak."""
    return zds_pb2.ZdsHello(version=zds_pb2.V1).SerializeToString()


def render_answer(error: str = "") -> bytes:
    """The answer to one request: it was carried out, or why not."""
    text = error.encode()[:_ANSWER_BYTES].decode(errors="ignore")
    return zds_pb2.WorkloadResponse(ack=zds_pb2.Ack(error=text)).SerializeToString()


def _uid(untrusted: str) -> str:
    if not 0 < len(untrusted) <= _UID_BYTES:
        raise PeerError(f"a uid has 1 to {_UID_BYTES} characters, this one {len(untrusted)}")
    return untrusted


def _named(untrusted: zds_pb2.AddWorkload) -> Named:
    """Without a name nobody knows whose certificate the pod is to have (ztunnel refuses it as well)."""
    told = untrusted.workload_info
    if not (told.name and told.namespace and told.service_account):
        raise PeerError(
            "AddWorkload without workload_info (name, namespace, service_account): nobody knows whose it is"
        )
    return Named(told.name, told.namespace, told.service_account)
