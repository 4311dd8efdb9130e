"""A laboratory with node proxies, and this process as whatever runs in its pods.

A socket that is made inside a pod's network namespace is that pod's: the programs know pods by it. So clients
and servers of these tests are plain sockets, and one thread can hold both ends of a connection.
"""

from __future__ import annotations

import http.client
import itertools
import os
import re
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import TypeVar

from ztunnel.demo.failure import LaboratoryFailed
from ztunnel.demo.operate import Laboratory
from ztunnel.kernel.netns import NetworkNamespace
from ztunnel.model.address import Endpoint, IPAddress, canonical

PATIENCE_SECONDS = 10.0
"""For what follows within milliseconds on an idle machine; this one may be busy."""

SOCKET_SECONDS = 10.0
TCP_FAMILIES = [IPv4Address, IPv6Address]
Family = type[IPv4Address] | type[IPv6Address]

T = TypeVar("T")
Line = Mapping[str, str]
_numbers = itertools.count()
_FIELD = re.compile(r'([\w.]+)=("(?:[^"\\]|\\.)*"|\S+)')
_SAMPLE = re.compile(r"(\w+)(?:\{(.*)\})? (\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def unique() -> str:
    """A name for a laboratory that no other test run has."""
    return f"m{os.getpid()}x{next(_numbers)}"


def wait_until(holds: Callable[[], T | None], what: str, seconds: float = PATIENCE_SECONDS) -> T:
    """What `holds` returns once it is true; fails with `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        found = holds()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:.0f} s: {what}")
        time.sleep(0.02)  # between two looks at a condition


def steadily(holds: Callable[[], bool], what: str, seconds: float = 0.3) -> None:
    """Something stays true for a while: for what must not happen."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert holds(), what
        time.sleep(0.02)


# --- manifests -----------------------------------------------------------------------


def namespace(name: str, ambient: bool = True, annotations: str = "") -> str:
    labels = "{istio.io/dataplane-mode: ambient}" if ambient else "{}"
    return (
        f"apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {labels}, "
        f"annotations: {{{annotations}}}}}\n---\n"
    )


def pod(
    where: str,
    node: str,
    account: str = "",
    labels: str = "",
    annotations: str = "",
) -> str:
    """A pod of the echo server, `namespace/name`; its account has the pod's name if none is given."""
    space, _, name = where.partition("/")
    return (
        f"apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {space}, "
        f"labels: {{app: {name}{', ' + labels if labels else ''}}}, annotations: {{{annotations}}}}}\n"
        f"spec: {{nodeName: {node}, serviceAccountName: {account or name}, containers: "
        f"[{{name: main, ports: [{{name: http, containerPort: 8080}}]}}]}}\n---\n"
    )


def service(where: str, app: str, port: int = 80, target: str = "8080", extra: str = "") -> str:
    space, _, name = where.partition("/")
    return (
        f"apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {space}}}\n"
        f"spec: {{selector: {{app: {app}}}, ports: [{{port: {port}, targetPort: {target}}}]{extra}}}\n---\n"
    )


def policy(where: str, action: str, rules: str, selector: str = "") -> str:
    """An AuthorizationPolicy; `rules` is YAML in flow style, `selector` labels of it."""
    space, _, name = where.partition("/")
    chosen = f", selector: {{matchLabels: {{{selector}}}}}" if selector else ""
    return (
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n"
        f"metadata: {{name: {name}, namespace: {space}}}\n"
        f"spec: {{action: {action}, rules: {rules}{chosen}}}\n---\n"
    )


def peer_authentication(where: str, mode: str, selector: str = "", ports: str = "") -> str:
    space, _, name = where.partition("/")
    chosen = f", selector: {{matchLabels: {{{selector}}}}}" if selector else ""
    levels = f", portLevelMtls: {{{ports}}}" if ports else ""
    return (
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n"
        f"metadata: {{name: {name}, namespace: {space}}}\n"
        f"spec: {{mtls: {{mode: {mode}}}{chosen}{levels}}}\n---\n"
    )


def account(where: str, trust_domain: str = "cluster.local") -> str:
    """The identity of `namespace/account`."""
    space, _, name = where.partition("/")
    return f"spiffe://{trust_domain}/ns/{space}/sa/{name}"


NODES = "".join(
    f"apiVersion: v1\nkind: Node\nmetadata: {{name: {name}}}\n---\n" for name in ("node-1", "node-2")
)
SHOP = NODES + namespace("shop") + namespace("out", ambient=False) + pod("shop/caller", "node-1")
"""Two nodes, a namespace in the mesh and one outside of it, and who calls in most tests."""


# --- sockets -------------------------------------------------------------------------


def endpoint_of(name: tuple[object, ...]) -> Endpoint:
    """An endpoint out of what getsockname() and getpeername() return; v4-mapped is v4."""
    return Endpoint(canonical(ip_address(str(name[0]).partition("%")[0])), int(str(name[1])))


def mapped(ip: IPAddress) -> str:
    """`::ffff:10.0.0.1`: how a dual-stack socket calls an IPv4 address."""
    return f"::ffff:{ip}"


def read_all(sock: socket.socket) -> bytes:
    """Everything until the other side closes its direction."""
    parts: list[bytes] = []
    while part := sock.recv(1 << 18):
        parts.append(part)
    return b"".join(parts)


def read_exactly(sock: socket.socket, size: int) -> bytes:
    """The next `size` bytes."""
    got = bytearray()
    while len(got) < size:
        part = sock.recv(size - len(got))
        if not part:
            raise AssertionError(f"ended after {len(got)} of {size} bytes: {bytes(got[-80:])!r}")
        got += part
    return bytes(got)


def reset(sock: socket.socket) -> None:
    """Close it with a RST, if it is open."""
    if sock.fileno() >= 0:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()


def is_refused(sock: socket.socket) -> bool:
    """Whether the other side ended it, or ends it now, without having said a byte."""
    try:
        return sock.recv(1) == b""
    except (ConnectionResetError, ConnectionAbortedError):
        return True


@dataclass(frozen=True, slots=True)
class Listener:
    """A server's listening socket in a pod; both families on one port that the kernel chose."""

    sock: socket.socket
    port: int
    keep: Callable[[socket.socket], socket.socket]

    def accept(self) -> socket.socket:
        """The next connection."""
        return self.keep(self.sock.accept()[0])

    def nobody(self) -> bool:
        """Whether nobody has connected."""
        self.sock.setblocking(False)
        try:
            self.keep(self.sock.accept()[0])
        except BlockingIOError:
            return True
        finally:
            self.sock.settimeout(SOCKET_SECONDS)
        return False


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """A connection that was tried. `own` is its own end, `error` what connect() said."""

    sock: socket.socket
    own: Endpoint
    error: OSError | None

    @property
    def refused(self) -> bool:
        """Whether it failed at once, or was ended without a byte from the other side."""
        return self.error is not None or is_refused(self.sock)

    def answers(self, said: bytes = b"ping") -> bool:
        """Whether the pod's echo server echoes."""
        if self.error is not None:
            return False
        try:
            self.sock.sendall(said)
            return read_exactly(self.sock, len(said)) == said
        except (OSError, AssertionError):
            return False


# --- figures -------------------------------------------------------------------------


def fetch(netns: Path, port: int, path: str, headers: Mapping[str, str]) -> tuple[int, str]:
    """Status and body of a page of the node itself. Raises LaboratoryFailed where nobody answers."""
    try:
        with NetworkNamespace.open(netns) as there, there.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
            sock.settimeout(SOCKET_SECONDS)
            sock.connect(("127.0.0.1", port))
            connection = http.client.HTTPConnection("localhost", port)
            connection.sock = sock
            connection.request("GET", path, headers={"connection": "close", **headers})
            with connection.getresponse() as response:
                return response.status, response.read().decode()
    except OSError as error:
        raise LaboratoryFailed(f"{netns.name} port {port}: {error}") from error


@dataclass(frozen=True, slots=True)
class Figures:
    """The metrics of one node at one time."""

    samples: Sequence[tuple[str, Mapping[str, str], float]]

    def total(self, name: str, **labels: str) -> float:
        """The sum of the samples of that name that have these labels."""
        return sum(
            value for each, has, value in self.samples if each == name and labels.items() <= has.items()
        )


def parse_figures(text: str) -> Figures:
    found = (_SAMPLE.fullmatch(line) for line in text.splitlines() if line and not line.startswith("#"))
    return Figures(
        [(match[1], dict(_LABEL.findall(match[2] or "")), float(match[3])) for match in found if match]
    )


def parse_line(text: str) -> Line:
    """One line of the log: its fields, and `level`, `scope`, `message`."""
    _, level, scope, message, rest = (*text.split("\t"), "", "", "", "", "")[:5]
    fields = {name: value.strip('"') for name, value in _FIELD.findall(rest)}
    return {"level": level, "scope": scope, "message": message, **fields, "text": text}


# --- the mesh ------------------------------------------------------------------------


IN_A_ROW_SECONDS = 0.002
"""Figures that are asked for so soon after one another are of one page: nothing has happened between."""


@dataclass
class Mesh:
    """A laboratory as these tests use it. `begin` and `finish` stand around each test."""

    laboratory: Laboratory
    _sockets: ExitStack = field(default_factory=ExitStack)
    _since: str = ""
    _figures: dict[str, Figures] = field(default_factory=dict)
    _made: dict[str, float] = field(default_factory=dict)
    _looked: dict[str, tuple[float, float]] = field(default_factory=dict)
    """When the last page was made, by a figure that has the time in it, and when it was looked at."""

    _dirty: bool = False
    patience_seconds: float = PATIENCE_SECONDS
    """How long what the test before has left behind may take to end."""

    _marks: Iterator[int] = field(default_factory=lambda: itertools.count(1001))

    # -- around a test --

    def begin(self, settled: bool = True) -> None:
        """Lines and figures count from here, when what the test before has left behind has ended."""
        if settled and self._dirty:
            self.settle()
        nodes = [node.name for node in self.laboratory.cluster().nodes]
        self._figures = {
            node: wait_until(partial(self._quiet, node), f"{node} is quiet", self.patience_seconds)
            for node in nodes
        }
        self._since = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    def _quiet(self, node: str) -> Figures | None:
        """The figures, if no connection is open."""
        try:
            found = self.figures(node, fresh=True)
        except LaboratoryFailed:  # a test of proxies that do not run
            return Figures([])
        opened, closed = (found.total(f"istio_tcp_connections_{what}_total") for what in ("opened", "closed"))
        # A page is kept for a moment. One that was made since the last test has another time in it.
        made, before = found.total("ztunnel_certificate_expiry_seconds"), self._made.get(node)
        if opened != closed or (made == before and made):
            return None
        self._made[node] = made
        return found

    def finish(self) -> None:
        """Close the sockets of the test."""
        self._sockets.close()

    def keep(self, sock: socket.socket) -> socket.socket:
        """Have it closed at the end of the test, with a RST; until then it blocks, not for ever."""
        sock.settimeout(SOCKET_SECONDS)
        self._sockets.callback(reset, sock)
        return sock

    # -- in a pod or on a node --

    def address(self, where: str, family: Family = IPv4Address) -> str:
        """A pod's address, or a node's (`node-1`)."""
        if "/" in where:
            return str(self.laboratory.pod(where).address(family))
        number = self.laboratory.node(where).number
        return f"10.10.0.{10 + number}" if family is IPv4Address else f"fd00:10::{10 + number}"

    def socket(
        self, where: str, family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM
    ) -> socket.socket:
        """A socket of a pod (`namespace/name`) or of a node (`node-1`)."""
        with NetworkNamespace.open(self.netns(where)) as there:
            return self.keep(there.socket(family, kind))

    def netns(self, where: str) -> str:
        """The file of its network namespace."""
        names = self.laboratory.names
        space, slash, name = where.partition("/")
        return str(names.netns(names.pod(space, name) if slash else names.node(where)))

    @contextmanager
    def filtered(self, where: str, rule: str) -> Iterator[None]:
        """An nftables chain in a pod's or node's namespace, for as long as the block lasts."""
        run = ["nsenter", f"--net={self.netns(where)}", "nft"]
        subprocess.run([*run, f"table inet filtered {{ chain in {{ {rule} }}; }}"], check=True)
        try:
            yield
        finally:
            subprocess.run([*run, "delete table inet filtered"], check=True)

    @contextmanager
    def sysctl(self, wheres: Sequence[str], name: str, value: str) -> Iterator[None]:
        """A sysctl of those namespaces, such as `net.ipv4.tcp_fastopen`, has that value."""
        with ExitStack() as undo:
            for where in wheres:
                netns = undo.enter_context(NetworkNamespace.open(self.netns(where)))
                undo.callback(netns.write_sysctl, name, netns.read_sysctl(name))
                netns.write_sysctl(name, value)
            yield

    def connect(self, where: str, address: object, port: int) -> socket.socket:
        """A connection from a pod or node; an address with a colon is called on an IPv6 socket."""
        if self._dirty:
            self.settle()
        sock = self.socket(where, socket.AF_INET6 if ":" in str(address) else socket.AF_INET)
        sock.connect((str(address), port))
        return sock

    def listen(self, where: str, address: str = "::", port: int = 0) -> Listener:
        """A server in a pod or on a node."""
        sock = self.socket(where, socket.AF_INET6 if ":" in address else socket.AF_INET)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if ":" in address:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind((address, port))
        sock.listen(256)
        return Listener(sock, sock.getsockname()[1], self.keep)

    def call(self, where: str, address: object, port: int) -> Call:
        """Try to connect; a refusal may show at once or with the first byte."""
        sock = self.socket(where, socket.AF_INET6 if ":" in str(address) else socket.AF_INET)
        error = None
        try:
            sock.connect((str(address), port))
        except OSError as failure:
            error = failure
        return Call(sock, endpoint_of(sock.getsockname()), error)

    def join(self, where: str, to: Listener, address: object) -> tuple[socket.socket, socket.socket]:
        """Both ends of a connection to a listener: the client's, the server's."""
        return self.join_by(where, to, address, to.port)

    def join_by(
        self, where: str, to: Listener, address: object, port: int
    ) -> tuple[socket.socket, socket.socket]:
        """The same where the client calls somebody else, who brings it there."""
        client = self.connect(where, address, port)
        return client, to.accept()

    # -- what it says --

    def lines(self, node: str) -> list[Line]:
        """What a node proxy has logged since the test began."""
        lines = self.laboratory.node_log(node).splitlines()
        return [parse_line(line) for line in lines if line >= self._since]

    def find_lines(self, node: str, **fields: object) -> list[Line]:
        """The lines with these fields; write `src_addr` for `src.addr`."""
        wanted = {name.replace("_", ".", 1): str(value) for name, value in fields.items()}
        return [line for line in self.lines(node) if wanted.items() <= line.items()]

    def line(self, node: str, **fields: object) -> Line:
        """The one line with these fields, once it is there; `message`: connection complete, unless given."""
        fields.setdefault("message", "connection complete")
        try:
            found = wait_until(lambda: self.find_lines(node, **fields), f"a line of {node} with {fields}")
        except AssertionError as error:
            tail = "\n".join(line["text"] for line in self.lines(node)[-10:])
            raise AssertionError(f"{error}; its last lines:\n{tail}") from error
        assert len(found) == 1, [line["text"] for line in found]
        return found[0]

    def figures(self, node: str, fresh: bool = False) -> Figures:
        """The node's metrics. A page is kept for up to a second: only `begin` asks for the `fresh` one's
        format, and one that was made before what has happened since the last look is not taken."""
        if fresh:
            return self._page(node, "application/openmetrics-text")
        before, looked = self._looked.get(node, (0.0, 0.0))
        begun = time.monotonic()
        while True:
            found = self._page(node, "text/plain")
            made = found.total("ztunnel_certificate_expiry_seconds")
            if made != before or begun - looked < IN_A_ROW_SECONDS or time.monotonic() - begun > 1.5:
                break
            time.sleep(0.1)  # to make a page, and to read it, is work
        self._looked[node] = made, time.monotonic()
        return found

    def _page(self, node: str, accept: str) -> Figures:
        netns = self.laboratory.names.netns(self.laboratory.names.node(node))
        return parse_figures(fetch(netns, 15020, "/metrics", {"accept": accept})[1])

    def grown(self, node: str, name: str, **labels: str) -> float:
        """How much a figure has grown since the test began."""
        return self.figures(node).total(name, **labels) - self._figures[node].total(name, **labels)

    def expect(self, node: str, growth: float, name: str, **labels: str) -> None:
        """A figure grows by exactly that since the test began."""
        self.expect_by(node, growth, name, PATIENCE_SECONDS, **labels)

    def expect_by(self, node: str, growth: float, name: str, seconds: float, **labels: str) -> None:
        """The same within so many seconds."""
        deadline = time.monotonic() + seconds
        while (grown := self.grown(node, name, **labels)) != growth:
            assert time.monotonic() < deadline, f"{name} {labels} of {node} grew by {grown}, not {growth}"
            time.sleep(0.02)

    def expect_flow(self, node: str, bytes_up: int, bytes_down: int, **labels: str) -> None:
        """Exactly one connection with these labels was opened and closed, and carried so many bytes."""
        self.expect(node, 1, "istio_tcp_connections_closed_total", **labels)
        self.expect(node, 1, "istio_tcp_connections_opened_total", **labels)
        self.expect(node, bytes_up, "istio_tcp_received_bytes_total", **labels)
        self.expect(node, bytes_down, "istio_tcp_sent_bytes_total", **labels)

    # -- changes --

    def apply(self, text: str, delete: bool = False) -> None:
        """Add, change or delete objects, and wait until every running node proxy has taken them over."""
        self.laboratory.apply(text, delete=delete)
        self.settle()

    def label(self, kind: str, name: str, changes: Mapping[str, str | None]) -> None:
        """Change labels, and wait as `apply` does."""
        self.laboratory.label(kind, name, changes)
        self.settle()

    def take_back(self, texts: Sequence[str]) -> None:
        """Delete objects without waiting: the next `settle` does, at the latest when the next test begins."""
        for text in texts:
            self.laboratory.apply(text, delete=True)
        self._dirty = True

    def settle(self) -> None:
        """Wait until what stands in the manifests is in force: a mark written after it has arrived."""
        self._dirty = False
        mark = next(self._marks)
        text = policy("marks/mark", "DENY", f"[{{to: [{{operation: {{ports: ['{mark}']}}}}]}}]")
        self.laboratory.apply(text + service("marks/mark", "nobody", mark))
        for node in self.laboratory.cluster().nodes:
            wait_until(lambda node=node: self._has(node.name, mark), f"{node.name} has taken over {mark}")

    def _has(self, node: str, mark: int) -> bool:
        try:
            dump = self.laboratory.node_get(node, "/config_dump")
        except LaboratoryFailed:  # its proxy does not run
            return True
        return f'"{mark}": ' in dump and re.search(rf'"destinationPorts": \[\s*{mark}\b', dump) is not None


@dataclass(frozen=True, slots=True)
class Tried:
    """One call of a load: when, from where to where, and whether it was answered, or why not."""

    begun: float
    ended: float
    where: str
    to: str
    answered: bool
    why: str = ""


class Load:
    """Short calls to echo servers, one after the other for each pair of pods, while a `with` block lasts."""

    def __init__(
        self, mesh: Mesh, pairs: Sequence[tuple[str, str]], families: Sequence[Family] = (IPv4Address,)
    ) -> None:
        self.tried: list[Tried] = []
        self._stop = threading.Event()
        # Looked up once: whoever changes objects meanwhile holds a lock on them.
        ends = [
            (where, mesh.netns(where), to, mesh.address(to, family))
            for where, to in pairs
            for family in families
        ]
        self._threads = [threading.Thread(target=self._run, args=end) for end in ends]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    @property
    def answered(self) -> int:
        """How many calls were."""
        return sum(each.answered for each in self.tried)

    def failed(self) -> list[Tried]:
        """Those that were not."""
        return [each for each in self.tried if not each.answered]

    def _run(self, where: str, netns: str, to: str, address: str) -> None:
        said = b"x" * 2000
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with NetworkNamespace.open(netns) as there:
            while not self._stop.wait(0.002):
                begun, answered, why = time.monotonic(), False, ""
                with there.socket(family, socket.SOCK_STREAM) as sock:
                    sock.settimeout(SOCKET_SECONDS)
                    step = "connect"
                    try:
                        sock.connect((address, 8080))
                        step = "carry"
                        sock.sendall(said)
                        answered = read_exactly(sock, len(said)) == said
                    except (OSError, AssertionError) as error:
                        why = f"{step}: {error!r}"
                self.tried.append(Tried(begun, time.monotonic(), where, to, answered, why))
