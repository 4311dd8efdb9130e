"""What clients may say to a waypoint, and what they may not: HTTP/1.1, HTTP/2, gRPC and what is no HTTP, byte
by byte through real processes."""

from __future__ import annotations

import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from queue import SimpleQueue

import grpc
import h2.config
import h2.connection
import h2.errors
import h2.events
import pytest

from tests.mesh.answering import Accepting, Answered, Http1, Server, addresses
from tests.mesh.lab import SHOP, TCP_FAMILIES, Family, Listener, Mesh, read_all, read_exactly, wait_until
from tests.mesh.test_waypoint import (
    GATEWAY,
    OUTSIDER,
    SERVER,
    GrpcInPod,
    Waypoint,
    head_of,
    policy,
    pump,
    server,
    service,
)  # fmt: skip
from tests.waypoint.broken import BEGINNING, BLOCK, BROKEN, frame
from tests.waypoint.test_downstream1 import ALL, LIMITS, head
from tests.waypoint.test_downstream2 import ANOTHER_ELSEWHERE, GET, MALFORMED
from tests.waypoint.tls_server import Authority

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]

At = Mapping[Family, Mapping[str, str]]

ENVIRONMENT = {"ZTUNNEL_REQUEST_HEAD_TIMEOUT": "1500ms", "ZTUNNEL_STREAM_IDLE_TIMEOUT": "1500ms"}
SERVER_FIRST = {"mail": 25, "names": 53, "rows": 3306, "documents": 27017}
MANIFESTS = (
    SHOP
    + GATEWAY
    + SERVER
    + OUTSIDER
    + service("web", "{name: http, port: 80, targetPort: 8081}")
    + service("sealed", "{name: tls, port: 443, targetPort: 8081}")
    + service(
        "first", ", ".join(f"{{name: {n}, port: {p}, targetPort: 8081}}" for n, p in SERVER_FIRST.items())
    )
    + service("calls", "{name: grpc, port: 80, targetPort: 8082}", app="outsider")
)


MESH_CONFIG = """apiVersion: v1
kind: ConfigMap
metadata: {name: ztunnel-mesh, namespace: ztunnel-system}
data: {mesh: "pathNormalization: {normalization: %s}"}
---
"""
SPELLED = {
    "BASE": "/a//b/c%2Fd?q=//",
    "MERGE_SLASHES": "/a/b/c%2Fd?q=//",
    "DECODE_AND_MERGE_SLASHES": "/a/b/c/d?q=//",
}
"""What servers have of `/a//./b/%2e/c%2fd?q=//`."""


@pytest.fixture
def at(mesh: Mesh) -> dict[Family, dict[str, str]]:
    """The addresses of services, once the waypoint is known."""
    found = {family: addresses(mesh, family) for family in TCP_FAMILIES}
    for each in found.values():
        wait_until(lambda to=each["web"]: mesh.call("shop/caller", to, 80).error is None, "it is known")
    return found


@pytest.fixture
def waypoint(mesh: Mesh, at: At) -> Waypoint:
    return Waypoint(mesh)


def test_what_http1_allows_passes(mesh: Mesh, waypoint: Waypoint, at: At) -> None:
    waypoint.settle(mesh)
    for family in TCP_FAMILIES:
        http1_passes(mesh, at[family]["web"])
    paths = [line[1].split()[1] for line in (waypoint.line(12), *waypoint.lines()[waypoint.seen :])[1:]]
    assert sorted(paths) == sorted(["/one", "/two", "/three", "/four", "*", "/last"] * 2)


def http1_passes(mesh: Mesh, address: str) -> None:
    listener = server(mesh)
    client = mesh.connect("shop/caller", address, 80)
    forwarded = head(b"X-Forwarded-For: 192.0.2.1", b"X-Forwarded-Host: b", first=b"GET /one HTTP/1.1")
    client.sendall(forwarded + head(first=b"HEAD /two HTTP/1.1"))  # pipelined
    there = listener.accept()
    asked = head_of(there)
    assert asked.startswith(b"GET /one ")
    assert b"\r\nx-forwarded-for: 192.0.2.1\r\nx-forwarded-host: b\r\n" in asked
    there.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none")
    assert b"content-length: 3\r\n" in head_of(client)
    assert read_exactly(client, 3) == b"one"
    assert head_of(there).startswith(b"HEAD /two ")
    there.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n")
    assert b"content-length: 7\r\n" in head_of(client)
    asked = head(b"Expect: 100-continue", b"Content-Length: 4", first=b"PUT /three HTTP/1.1")
    client.sendall(asked)
    assert head_of(client) == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.sendall(b"body")
    assert b"expect" not in head_of(there)
    assert read_exactly(there, 4) == b"body"
    there.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
    assert b"content-length" not in head_of(client)
    asked = head(b"Transfer-Encoding: chunked", b"Trailer: X-Sum", first=b"POST /four HTTP/1.1")
    client.sendall(asked + b"4;x=y\r\nbody\r\n0\r\nX-Sum: 1\r\n\r\n")
    head_of(there)
    assert read_exactly(there, 24) == b"4\r\nbody\r\n0\r\nx-sum: 1\r\n\r\n"
    there.sendall(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
    there.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 2\r\n\r\n")
    assert head_of(client).startswith(b"HTTP/1.1 103 ")
    assert head_of(client).startswith(b"HTTP/1.1 200 ")
    assert read_exactly(client, 22) == b"2\r\nhi\r\n0\r\nx-sum: 2\r\n\r\n"
    client.sendall(head(first=b"OPTIONS * HTTP/1.1"))
    assert head_of(there).startswith(b"OPTIONS * HTTP/1.1\r\n")
    there.sendall(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n")
    assert head_of(client).startswith(b"HTTP/1.1 304 ")
    client.sendall(head(b"Connection: close", first=b"GET /last HTTP/1.1"))
    assert b"close" not in head_of(there)
    there.sendall(b"HTTP/1.0 200 OK\r\n\r\nuntil the end")
    there.close()
    assert read_all(client).endswith(b"\r\nd\r\nuntil the end\r\n0\r\n\r\n")
    listener.sock.close()


def test_paths_are_spelled_as_the_mesh_config_says(
    mesh: Mesh, waypoint: Waypoint, at: At, applied: Callable[[str], None]
) -> None:
    with closing(Answered()) as answered, closing(Server(server(mesh), "v1", answered)):
        clients = [Http1(mesh, at[family]["web"], 80) for family in TCP_FAMILIES]
        apply = applied

        def paths() -> set[str]:
            replies = [
                client.ask("GET", "/a//./b/%2e/c%2fd?q=//", "web", {}).told or {} for client in clients
            ]
            return {each["fields"]["path"] for each in replies}

        for spelling, path in SPELLED.items():
            if spelling != "BASE":  # which is the default
                apply(MESH_CONFIG % spelling)
                apply = mesh.apply
            wait_until(lambda path=path: paths() == {path}, f"{spelling}: {path}")
            said = f"GET {path} HTTP/1.1"
            wait_until(
                lambda said=said: [line[1] for line in waypoint.lines()[-1:]] == [said],
                "it is logged like that",
            )


class Recorder(Accepting):
    """A server that keeps what it is told, and answers nothing."""

    def __init__(self, listener: Listener) -> None:
        self.told = bytearray()
        super().__init__(listener)

    def serve(self, sock: socket.socket, number: int) -> None:
        while part := sock.recv(1 << 16):
            self.told += part


@contextmanager
def recording(mesh: Mesh) -> Iterator[Recorder]:
    made = Recorder(server(mesh))
    try:
        yield made
    finally:
        made.close()


SMUGGLED = head(first=b"GET /smuggled HTTP/1.1")


def test_what_two_could_read_otherwise_reaches_nobody(mesh: Mesh, waypoint: Waypoint, at: At) -> None:
    """Each has one answer, and what stands behind it is no request; all of it is logged or counted."""
    cases = [(name, octets + SMUGGLED, b"HTTP/1.1 ") for name, octets in ALL.items()]
    cases += [(f"limit {status!r}", octets, b"HTTP/1.1 " + status) for octets, status in LIMITS]
    waypoint.seen = len(waypoint.lines())
    with recording(mesh) as recorder:
        for number, (name, octets, status) in enumerate(cases):
            client = mesh.connect("shop/caller", at[TCP_FAMILIES[number % 2]]["web"], 80)
            with suppress(OSError):  # what is behind it may not be read any more
                client.sendall(octets)
            said = bytearray()
            with suppress(ConnectionResetError):
                while part := client.recv(1 << 16):
                    said += part
            assert said.startswith(status), (name, bytes(said))
            assert said[9:10] in b"45", (name, bytes(said))
            assert said.count(b"HTTP/1.1 ") == 1, (name, bytes(said))
            client.close()
        assert b"smuggled" not in recorder.told

    def told() -> int:
        return refusals(waypoint) + len(waypoint.lines()[waypoint.seen :])

    wait_until(lambda: told() >= len(cases), "each is counted, or logged")
    lines = waypoint.lines()[waypoint.seen :]
    assert not [line for line in lines if line[2][0] not in "45" and line[2] != "0"]


def test_who_is_slow_is_not_waited_for(mesh: Mesh, waypoint: Waypoint, at: At) -> None:
    """Heads and bodies that do not come, in both versions. A byte now and then is not enough of a head, but
    of a body."""
    waypoint.settle(mesh)
    with recording(mesh) as recorder:
        slow = [Slow(mesh, at[family]["web"]) for family in TCP_FAMILIES]
        for more in (b"o", b"dy"):
            pause = time.monotonic() + 0.9
            wait_until(lambda until=pause: time.monotonic() > until, "less time passes than there is")
            assert more == b"dy" or not any(each.answered for each in slow)
            for each in slow:
                each.go_on(more)
        for each in slow:
            each.check()
        wait_until(lambda: recorder.told.count(b"dy") == 2, "what moves passes, as slow as it is")
        assert b"/head" not in recorder.told
    wait_until(lambda: refusals(waypoint) >= 4 * 2, "they are counted")
    wanted = [[f"POST /slow HTTP/{n}", "408", "SI", "stream_idle_timeout"] for n in ("1.1", "2")]

    def logged() -> list[int]:
        lines = [line[1:5] for line in waypoint.lines()[waypoint.seen :]]
        return [lines.count(each) for each in wanted]

    wait_until(lambda: logged() == [2, 2], "they are logged")


class Slow:
    """Clients that begin, and do not go on."""

    def __init__(self, mesh: Mesh, address: str) -> None:
        made = (mesh.connect("shop/caller", address, 80) for _ in range(5))
        self._head, self._body, self._trickle, self._block, self._stream = made
        body = head(b"Content-Length: 4", first=b"POST /slow HTTP/1.1") + b"b"
        self._head.sendall(b"GET /head HTTP/1.1\r\nHost: web\r\nX-")
        self._body.sendall(body)
        self._trickle.sendall(body)
        self._block.sendall(BEGINNING + frame(1, 1, 1, BLOCK))
        self._side = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding=None))
        self._side.initiate_connection()
        self._side.send_headers(1, [(b":method", b"POST"), *GET[1:3], (b":path", b"/slow")])
        self._side.send_data(1, b"b")
        self._stream.sendall(self._side.data_to_send())

    @property
    def answered(self) -> bool:
        """Whether somebody who speaks HTTP/1.1 has been."""
        return bool(select.select([self._head, self._body, self._trickle], [], [], 0)[0])

    def go_on(self, more: bytes) -> None:
        """Two of them say a little more."""
        with suppress(OSError):
            self._head.sendall(b"x")
        self._trickle.sendall(more)

    def check(self) -> None:
        """All but one have been refused."""
        assert head_of(self._head).startswith(b"HTTP/1.1 408 ")
        assert head_of(self._body).startswith(b"HTTP/1.1 408 ")
        assert ended(self._block)
        events = exchanged(self._stream, self._side, 1)
        (answer,) = [each for each in events if isinstance(each, h2.events.ResponseReceived)]
        assert dict(answer.headers)[b":status"] == b"408"


def refusals(waypoint: Waypoint) -> int:
    """How many of them have been counted since."""
    name = "ztunnel_waypoint_refusals_total"
    return int(waypoint.figures().total(name) - waypoint.before.total(name))


def exchanged(sock: socket.socket, side: h2.connection.H2Connection, stream: int) -> list[h2.events.Event]:
    """Everything until that stream has ended, or the connection."""
    events: list[h2.events.Event] = []
    over = (h2.events.StreamEnded, h2.events.StreamReset)
    while not any(isinstance(each, over) and each.stream_id == stream for each in events):
        octets = sock.recv(1 << 16)
        assert octets, events
        events += side.receive_data(octets)
        if told := side.data_to_send():
            sock.sendall(told)
    return events


def test_a_request_of_http2_that_would_be_another_one_elsewhere_reaches_nobody(
    mesh: Mesh, waypoint: Waypoint, at: At
) -> None:
    """Refused, or its stream is reset; the others of the connection go on."""
    config = h2.config.H2Configuration(
        header_encoding=None, validate_outbound_headers=False, normalize_outbound_headers=False
    )
    with recording(mesh) as recorder:
        for family in TCP_FAMILIES:
            sock = mesh.connect("shop/caller", at[family]["web"], 80)
            side = h2.connection.H2Connection(config)
            side.initiate_connection()
            for headers, status in [*ANOTHER_ELSEWHERE, *((each, 0) for each in MALFORMED)]:
                stream = side.get_next_available_stream_id()
                side.send_headers(stream, headers, end_stream=True)
                sock.sendall(side.data_to_send())
                events = exchanged(sock, side, stream)
                answers = [each for each in events if isinstance(each, h2.events.ResponseReceived)]
                assert [dict(each.headers)[b":status"] for each in answers] == [b"%d" % status] * bool(status)
            stream = side.get_next_available_stream_id()
            side.send_headers(stream, [*GET[:3], (b":path", b"/good")], end_stream=True)
            sock.sendall(side.data_to_send())
            wait_until(lambda: recorder.told.count(b"GET /good HTTP/1.1\r\n"), "the good one passes")
            recorder.told.clear()
        assert not recorder.told
    wait_until(lambda: refusals(waypoint) >= 2 * len(MALFORMED), "they are counted")


def test_a_connection_of_http2_that_is_broken_ends_and_takes_nobody_along(
    mesh: Mesh, waypoint: Waypoint, at: At
) -> None:
    """Of h2spec's kinds, and floods: the connection is closed, is counted, and memory does not grow."""
    with recording(mesh):
        other = mesh.connect("shop/caller", at[IPv4Address]["web"], 80)
        held = resident(waypoint)
        for number, (name, octets) in enumerate(BROKEN.items()):
            sock = mesh.connect("shop/caller", at[TCP_FAMILIES[number % 2]]["web"], 80)
            with suppress(OSError):
                sock.sendall(octets)
            with suppress(ConnectionResetError):
                assert ended(sock), name
            sock.close()
        other.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert b" 400 " in head_of(other)
        assert resident(waypoint) - held < 16 << 20
    wait_until(lambda: refusals(waypoint) >= len(BROKEN), "they are counted")


def ended(sock: socket.socket) -> bool:
    while sock.recv(1 << 16):
        pass
    return True


def resident(waypoint: Waypoint) -> int:
    """Bytes."""
    return int(waypoint.figures().total("process_resident_memory_bytes"))


class Calls(GrpcInPod):
    """A service of grpcio's with a method of each kind."""

    def __init__(self, mesh: Mesh) -> None:
        self.cancelled = threading.Event()
        super().__init__(
            mesh, 8082, "shop.Calls",
            Unary=grpc.unary_unary_rpc_method_handler(self.unary),
            Down=grpc.unary_stream_rpc_method_handler(self.down),
            Up=grpc.stream_unary_rpc_method_handler(self.up),
            Both=grpc.stream_stream_rpc_method_handler(self.both),
            Fails=grpc.unary_unary_rpc_method_handler(self.fails),
            Waits=grpc.unary_unary_rpc_method_handler(self.waits),
        )  # fmt: skip

    def unary(self, asked: bytes, context: grpc.ServicerContext) -> bytes:
        context.set_trailing_metadata((("x-sum", str(len(asked))),))
        return asked[::-1]

    def down(self, asked: bytes, _context: object) -> Iterator[bytes]:
        for number in range(int(asked)):
            yield b"%d" % number

    def up(self, asked: Iterator[bytes], _context: object) -> bytes:
        return b",".join(asked)

    def both(self, asked: Iterator[bytes], _context: object) -> Iterator[bytes]:
        for each in asked:
            yield each.upper()

    def fails(self, _asked: bytes, context: grpc.ServicerContext) -> bytes:
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not now: ü%")

    def waits(self, _asked: bytes, context: grpc.ServicerContext) -> bytes:
        context.add_callback(self.cancelled.set)
        self.cancelled.wait(30)
        return b""


@contextmanager
def channel_to(mesh: Mesh, address: str) -> Iterator[grpc.Channel]:
    """A channel of grpcio's, which is the caller's."""
    with socket.create_server(("127.0.0.1", 0)) as near, ThreadPoolExecutor(4) as pool:

        def relay() -> None:
            with suppress(OSError), near.accept()[0] as here:
                there = mesh.connect("shop/caller", address, 80)
                there.settimeout(None)
                pool.submit(pump, here, there)
                pump(there, here)

        pool.submit(relay)
        options = [("grpc.enable_retries", 0), ("grpc.enable_http_proxy", 0)]
        with grpc.insecure_channel(f"127.0.0.1:{near.getsockname()[1]}", options) as channel:
            yield channel


@pytest.mark.parametrize("family", TCP_FAMILIES)
def test_calls_of_grpc_of_every_kind_pass(mesh: Mesh, waypoint: Waypoint, at: At, family: Family) -> None:
    """By grpcio at both ends: messages each way, statuses with their texts, deadlines, and cancellation."""
    calls = Calls(mesh)
    try:
        with channel_to(mesh, at[family]["calls"]) as channel:
            answer, call = channel.unary_unary("/shop.Calls/Unary").with_call(b"abc", timeout=10)
            assert (answer, dict(call.trailing_metadata())["x-sum"]) == (b"cba", "3")
            down = channel.unary_stream("/shop.Calls/Down")(b"50", timeout=10)
            assert list(down) == [b"%d" % number for number in range(50)]
            up = channel.stream_unary("/shop.Calls/Up")(iter([b"a", b"b", b"c"]), timeout=10)
            assert up == b"a,b,c"
            both = channel.stream_stream("/shop.Calls/Both")(iter([b"x" * 100_000] * 3), timeout=10)
            assert list(both) == [b"X" * 100_000] * 3
            with pytest.raises(grpc.RpcError) as failed:
                channel.unary_unary("/shop.Calls/Fails")(b"", timeout=10)
            assert failed.value.code() is grpc.StatusCode.FAILED_PRECONDITION
            assert failed.value.details() == "not now: ü%"
            with pytest.raises(grpc.RpcError) as failed:
                channel.unary_unary("/shop.Calls/Nothing")(b"", timeout=10)
            assert failed.value.code() is grpc.StatusCode.UNIMPLEMENTED
            with pytest.raises(grpc.RpcError) as failed:
                channel.unary_unary("/shop.Calls/Waits")(b"", timeout=0.3)
            assert failed.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            assert calls.cancelled.wait(10)  # the server hears that nobody waits
    finally:
        calls.close()
    labels = {"destination_service": "calls.shop.svc.cluster.local", "request_protocol": "grpc"}
    waypoint.grows("istio_requests_total", 4, grpc_response_status="0", **labels)
    waypoint.grows("istio_requests_total", 1, grpc_response_status="9", **labels)
    waypoint.grows("istio_request_messages_total", 11, **labels)


def who(rule: str, action: str = "ALLOW") -> str:
    return policy(f"{{from: [{{source: {{{rule}}}}}]}}", action=action, name="calls")


@pytest.mark.parametrize(
    ("family", "before", "after"),
    [
        (IPv4Address, who("serviceAccounts: [caller]"), who("serviceAccounts: [server]")),
        (IPv6Address, who("namespaces: [out]", "DENY"), who("namespaces: [shop]", "DENY")),
    ],
)
def test_a_stream_of_grpc_ends_when_its_caller_may_not_call_any_more(
    mesh: Mesh, waypoint: Waypoint, at: At, family: Family, before: str, after: str
) -> None:
    calls, asked = Calls(mesh), SimpleQueue[bytes]()
    mesh.apply(before)
    try:
        with channel_to(mesh, at[family]["calls"]) as channel:
            both = channel.stream_stream("/shop.Calls/Both")(iter(asked.get, b""), timeout=20)
            asked.put(b"one")
            assert next(both) == b"ONE"
            mesh.apply(after)
            with pytest.raises(grpc.RpcError) as failed:
                next(both)
            assert failed.value.code() is grpc.StatusCode.PERMISSION_DENIED
            asked.put(b"")
    finally:
        asked.put(b"")
        mesh.apply(before, delete=True)
        calls.close()
    labels = {"destination_service": "calls.shop.svc.cluster.local", "request_protocol": "grpc"}
    waypoint.grows("istio_requests_total", 1, grpc_response_status="7", **labels)


def test_where_the_server_speaks_first_nobody_waits_for_the_client(
    mesh: Mesh, waypoint: Waypoint, at: At
) -> None:
    """Ports 25, 53, 3306 and 27017 are not listened to for what is spoken on them."""
    listener = server(mesh)
    for number, port in enumerate(SERVER_FIRST.values()):
        began = time.monotonic()
        client = mesh.connect("shop/caller", at[TCP_FAMILIES[number % 2]]["first"], port)
        there = listener.accept()
        there.sendall(b"220 ready\r\n")
        assert read_exactly(client, 11) == b"220 ready\r\n"
        assert time.monotonic() - began < 1.0
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")  # it is not HTTP whatever it looks like
        assert read_exactly(there, 18) == b"GET / HTTP/1.1\r\n\r\n"
    waypoint.grows("ztunnel_waypoint_undetected_total", 0)


def test_tls_passes_as_it_is(mesh: Mesh, waypoint: Waypoint, at: At, tmp_path: Path) -> None:
    """It is the server's certificate that the client sees."""
    waypoint.settle(mesh)
    authority = Authority(tmp_path)
    near, far = ssl.create_default_context(cafile=authority.roots), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    far.load_cert_chain(*authority.issue("server", "a.example"))
    listener = server(mesh)
    for family in (IPv4Address, IPv6Address):
        client = mesh.connect("shop/caller", at[family]["sealed"], 443)
        with ThreadPoolExecutor(1) as pool:
            there = pool.submit(lambda: far.wrap_socket(listener.accept(), server_side=True))
            with near.wrap_socket(client, server_hostname="a.example") as sealed, there.result() as other:
                sealed.sendall(b"secret")
                assert read_exactly(other, 6) == b"secret"
    wait_until(lambda: len(waypoint.lines()) == waypoint.seen + 2, "both are logged")
    assert {tuple(line[1:4]) for line in waypoint.lines()[waypoint.seen :]} == {("- - -", "0", "-")}


@pytest.mark.parametrize(("action", "name"), [("ALLOW", "a.example"), ("DENY", "b.example")])
def test_a_rule_about_a_name_of_tls_that_passes_lets_nothing_through(
    mesh: Mesh, waypoint: Waypoint, at: At, action: str, name: str
) -> None:
    """Nobody has read it: all is refused, where it has to be that one or must not be another one."""
    listener = server(mesh)
    text = policy(f"{{when: [{{key: connection.sni, values: [{name}]}}]}}", action=action, name="sealed")

    def passes(address: str) -> bool:
        call = mesh.call("shop/caller", address, 443)
        if call.error is not None:
            return False
        ready = select.select([call.sock, listener.sock], [], [], 10)[0]
        assert ready
        if listener.sock in ready:
            listener.accept()
        return listener.sock in ready

    assert all(passes(at[family]["sealed"]) for family in TCP_FAMILIES)
    mesh.apply(text)
    try:
        for family in TCP_FAMILIES:
            wait_until(lambda to=at[family]["sealed"]: not passes(to), "it is refused")
            assert not passes(at[family]["sealed"])
    finally:
        mesh.apply(text, delete=True)
