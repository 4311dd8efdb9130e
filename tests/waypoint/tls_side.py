"""The client's side of TLS with a server that is played, and certificates."""

from __future__ import annotations

import pytest

from tests.waypoint.pooled import Stream
from tests.waypoint.rig import Clock
from tests.waypoint.tls_server import Authority, TlsServer
from ztunnel.model.traffic import ClientTls, TlsMode
from ztunnel.waypoint.upstream.load import Contexts
from ztunnel.waypoint.upstream.secure import Securing

NAME = "a.example"


class Computers:
    """They compute at once."""

    def submit(self, pod, source, step, done) -> None:
        try:
            step()
        except Exception as error:  # noqa: BLE001 (as a thread's future has it)
            done(error)
        else:
            done(None)


class Listener:
    def __init__(self) -> None:
        self.got = b""
        self.log: list[str] = []
        self.stream = None
        self.takes = True

    def received(self, untrusted) -> None:
        self.got += untrusted
        if self.takes:
            self.stream.taken(len(untrusted))

    def ended(self) -> None:
        self.log.append("ended")

    def writable(self) -> None:
        self.log.append("writable")

    def lost(self, error) -> None:
        self.log.append(f"lost: {error}")


class Side:
    """A client's side, with a server at the other end."""

    def __init__(self, tls: ClientTls, server: TlsServer | None, name: str = NAME, alpn: str = "") -> None:
        self.clock = Clock()
        self.inner = Stream()
        self.server = server
        self.stands = None
        self.error = None
        self.contexts = Contexts()
        self.securing = Securing(
            self.clock, Computers(), self.contexts, (tls, name, alpn), (self._stand, self._fail)
        )
        self.securing.start(self.inner, 5.0)
        self.pump()

    def _stand(self, stream) -> None:
        self.stands = stream

    def _fail(self, error) -> None:
        assert self.error is None
        self.error = error

    def pump(self, size: int = 0) -> None:
        """Until nothing moves; what the server sends is cut into pieces of that size."""
        while self.server is not None and (said := self.inner.said()):
            answer = self.server.take(said)
            self.give(answer, size)

    def give(self, cipher: bytes, size: int = 0) -> None:
        for at in range(0, len(cipher), size or len(cipher) or 1):
            if self.inner.receiver is not None and not self.inner.aborted:
                self.inner.send(cipher[at : at + (size or len(cipher))])

    def listen(self) -> Listener:
        listener = Listener()
        listener.stream = self.stands
        self.stands.attach(listener)
        self.pump()
        return listener


@pytest.fixture(scope="module")
def authority(tmp_path_factory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def server_paths(authority):
    return authority.issue("server", NAME, "spiffe://mesh/ns/a", "10.0.0.1")


def simple(authority, **more) -> ClientTls:
    return ClientTls(TlsMode.SIMPLE, roots=authority.roots, **more)
