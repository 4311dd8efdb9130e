"""A waypoint before a service that a CUSTOM policy is about, and its authorizer, played over tunnels."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import h2.config
import h2.connection
import h2.events

from tests.hbone.inner import Listener
from tests.hbone.peers import Lab
from tests.waypoint.mesh import CALLER, ME, SERVERS, SERVICE, Mesh, workload
from ztunnel.hbone.terminate import TerminatedTunnel
from ztunnel.model.http_policy import HttpAction, HttpPolicy
from ztunnel.model.provider import ExtAuthz, ExtensionProvider, ServicePort, Speech
from ztunnel.model.service import AppProtocol, Port, Service, ServiceName
from ztunnel.rpc.message import push_header
from ztunnel.xds.pb import ext_authz_pb2 as pb

AUTH = ServiceName("auth", "asks.auth.svc.cluster.local")
AUTH_PORTS = (Port(8000, 8000), Port(9000, 9000))
AUTHORIZER = workload("asks-1", "10.0.0.9", AUTH, AUTH_PORTS)
ASKS = Service(
    "asks", "auth", AUTH.hostname, (ip_address("10.1.0.9"),), AUTH_PORTS,
    protocols=((8000, AppProtocol.HTTP), (9000, AppProtocol.GRPC)),
)  # fmt: skip
GUARDED = replace(SERVICE, guards=("shop/ask", "shop/more"))
ASK = HttpPolicy("ask", "shop", HttpAction.CUSTOM, ((),), provider="asks")
ALLOW = HttpPolicy("more", "shop", HttpAction.ALLOW, ((),))
HTTP = ExtAuthz(Speech.HTTP, ServicePort(AUTH.hostname, 8000), timeout_seconds=5.0)
GRPC = ExtAuthz(Speech.GRPC, ServicePort(AUTH.hostname, 9000), timeout_seconds=5.0)
GET = b"GET /x HTTP/1.1\r\nHost: web\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
DENIES = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\nX-Why: you\r\nServer: asks\r\n\r\nno"


class Asking(Mesh):
    """`counted`: what came of questions."""

    def __init__(
        self, lab: Lab, provider: ExtAuthz, *more, policies=(ASK, ALLOW), jwt: tuple[str, ...] = ()
    ) -> None:
        """`jwt`: the policies of tokens, of those in `more`, that the service has."""
        known = ExtensionProvider("asks", provider)
        guarded = replace(GUARDED, jwt_policies=jwt)
        super().__init__(lab, ME, CALLER, *SERVERS, AUTHORIZER, ASKS, guarded, known, *policies, *more)
        self.counted: list[tuple[str, str]] = []
        self.parts.checks.counted = lambda name, outcome: self.counted.append((name, outcome))

    def send(self, octets: bytes = GET) -> Listener:
        """A client of HTTP/1.1 sends this; what it hears."""
        self.sender, heard = self.open("10.1.0.1:80")
        self.sender.write(octets)
        return heard

    def question(self, count: int = 1) -> tuple[TerminatedTunnel, Listener]:
        """The tunnel to the authorizer, which is the last of so many, with a whole head."""
        tunnel, heard = self.serve(count)
        assert self.tunnels.asked[-1][0] == "10.0.0.9"
        self.lab.go(until=lambda: b"\r\n\r\n" in heard.got or heard.got.startswith(b"PRI"))
        return tunnel, heard

    def passed(self, count: int = 2) -> bytes:
        """What the server gets of the request, whose tunnel is the last of so many."""
        _, heard = self.serve(count)
        assert self.tunnels.asked[-1][0] in ("10.0.0.3", "10.0.0.4")
        self.lab.go(until=lambda: b"\r\n\r\n" in heard.got)
        return bytes(heard.got)

    def answered(self, heard: Listener, end: bytes) -> bytes:
        """The client's answer, and its line."""
        self.lab.go(until=lambda: heard.got.endswith(end) and self.lines)
        return bytes(heard.got)


class GrpcAuthorizer:
    """An authorizer that speaks gRPC on a tunnel; `answer` is None: it says nothing."""

    def __init__(self, mesh: Asking, count: int = 1) -> None:
        self.mesh = mesh
        self.tunnel, self.heard = mesh.question(count)
        config = h2.config.H2Configuration(client_side=False, header_encoding=None)
        self.h2 = h2.connection.H2Connection(config)
        self.h2.initiate_connection()
        self.fields: dict[bytes, bytes] = {}
        self.body = bytearray()
        self.stream = 0
        self.ended = self.reset = False

    def pump(self) -> bool:
        got, self.heard.got = self.heard.got, bytearray()
        for event in self.h2.receive_data(bytes(got)):
            if isinstance(event, h2.events.RequestReceived):
                self.fields, self.stream = dict(event.headers), event.stream_id
            elif isinstance(event, h2.events.DataReceived):
                self.body += event.data
            elif isinstance(event, h2.events.StreamEnded):
                self.ended = True
            elif isinstance(event, h2.events.StreamReset):
                self.reset = True
        said = self.h2.data_to_send()
        if said:
            self.tunnel.write(said)
        return self.ended

    def asked(self) -> pb.AttributeContext:
        """What it is asked."""
        self.mesh.lab.go(until=self.pump)
        flag, length = self.body[0], int.from_bytes(self.body[1:5], "big")
        assert (flag, length) == (0, len(self.body) - 5)
        return pb.CheckRequest.FromString(bytes(self.body[5:])).attributes

    def say(self, message: bytes | None, status: bytes = b"0", http: bytes = b"200") -> None:
        """Answer with this message, framed, or only in trailers."""
        head = [(b":status", http), (b"content-type", b"application/grpc")]
        if message is None:
            self.h2.send_headers(self.stream, [*head, (b"grpc-status", status)], end_stream=True)
        else:
            self.h2.send_headers(self.stream, head)
            self.h2.send_data(self.stream, message)
            self.h2.send_headers(self.stream, [(b"grpc-status", status)], end_stream=True)
        self.tunnel.write(self.h2.data_to_send())

    def answer(self, code: int = 0, **kinds) -> None:
        """Answer with a CheckResponse."""
        message = pb.CheckResponse(status={"code": code}, **kinds).SerializeToString()
        self.say(push_header(len(message)) + message)
