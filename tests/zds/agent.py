"""Istio's CNI agent as far as a node proxy sees it: the server of a unix socket that names pods, in its own
thread-less way, and the bytes that it sends."""

from __future__ import annotations

import array
import socket
from contextlib import suppress
from pathlib import Path

from ztunnel.xds.pb import zds_pb2
from ztunnel.zds.message import Named

SECONDS = 10.0


def add(uid: str, pod: Named) -> bytes:
    info = zds_pb2.WorkloadInfo(name=pod.name, namespace=pod.namespace, service_account=pod.service_account)
    told = zds_pb2.AddWorkload(uid=uid, workload_info=info)
    return zds_pb2.WorkloadRequest(add=told).SerializeToString()


def keep(uid: str) -> bytes:
    return zds_pb2.WorkloadRequest(keep=zds_pb2.KeepWorkload(uid=uid)).SerializeToString()


def delete(uid: str) -> bytes:
    told = zds_pb2.WorkloadRequest()
    getattr(told, "del").uid = uid
    return told.SerializeToString()


def snapshot() -> bytes:
    return zds_pb2.WorkloadRequest(snapshot_sent=zds_pb2.SnapshotSent()).SerializeToString()


class Agent:
    """Listens as the agent does (istio cni/pkg/nodeagent/ztunnelserver.go). Use as a context manager."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        path.unlink(missing_ok=True)  # newZtunnelServer removes what an earlier one has left
        self.listener.bind(str(path))
        self.listener.listen()
        self.listener.settimeout(SECONDS)

    def accept(self) -> Connected:
        """The next proxy that connects, and its hello."""
        return Connected(self.listener.accept()[0])

    def close(self) -> None:
        self.listener.close()

    def __enter__(self) -> Agent:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Connected:
    """One proxy that has connected."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.settimeout(SECONDS)
        hello = zds_pb2.ZdsHello.FromString(sock.recv(1024))
        assert hello.version == zds_pb2.V1

    def send(self, message: bytes, *descriptors: int) -> str:
        """One message and what comes back: the error, empty for none."""
        self.post(message, *descriptors)
        return self.answer()

    def post(self, message: bytes, *descriptors: int) -> None:
        """One message."""
        rights = (
            [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        )
        self.sock.sendmsg([message], rights)

    def answer(self) -> str:
        """As istio's readProto: 1024 bytes are read, and more is a broken answer."""
        read, _, flags, _ = self.sock.recvmsg(1024)
        assert read, "the proxy has closed the connection"
        assert not flags & socket.MSG_TRUNC
        return str(zds_pb2.WorkloadResponse.FromString(read).ack.error)

    def name(self, uid: str, pod: Named, netns: str) -> str:
        """AddWorkload with the namespace at that path."""
        with open(netns, "rb") as there:
            return self.send(add(uid, pod), there.fileno())

    def close(self) -> None:
        with suppress(OSError):
            self.sock.close()
