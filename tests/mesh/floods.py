"""What hostile peers send to 15008 and to a pod, one function for each; as a program, one of them for a time.

    ip netns exec NETNS python -m tests.mesh.floods PATTERN JSON

JSON are the fields of `Target`. A peer that is cut off comes back at once. It prints how many connections it
made and how much it wrote.

It takes only the CPU time that hardly anybody else wants: a hostile peer is another machine, which takes none
of ours, and what is measured is what the proxy does for it.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from ztunnel.http2.fields import push_fields
from ztunnel.http2.frame import (
    PREFACE,
    Code,
    Frame,
    Setting,
    push_headers,
    push_ping,
    push_reset,
    push_settings,
    push_window_update,
)
from ztunnel.http2.frame import push_frame as frame


@dataclass
class Target:
    """Who is attacked, by whom and how long. `allowed` and `denied` are PEM: key and chain of an identity
    that policy lets in, and of one that it refuses."""

    host: str
    port: int
    closed_port: int
    seconds: float
    roots: str
    allowed: str
    denied: str
    deadline: float = 0.0
    connections: int = 0
    chunks: int = 0

    @property
    def left(self) -> float:
        return self.deadline - time.monotonic()

    def connect(self, port: int = 15008) -> socket.socket:
        sock = socket.create_connection((self.host, port), max(self.left, 0.05))
        self.connections += 1
        return sock

    def session(self, identity: str) -> ssl.SSLSocket:
        """TLS, preface and settings."""
        tls = context(self.roots, identity).wrap_socket(self.connect())
        tls.sendall(PREFACE + push_settings({}))
        return tls

    def connect_block(self, port: int | None = None) -> bytes:
        host = f"[{self.host}]" if ":" in self.host else self.host
        authority = f"{host}:{port or self.port}"
        return push_fields([(b":method", b"CONNECT"), (b":authority", authority.encode())])


@cache
def context(roots: str, identity: str) -> ssl.SSLContext:
    """Of a client that presents this identity."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.load_verify_locations(cadata=roots)
    made.set_alpn_protocols(["h2"])
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(identity)
        file.flush()
        made.load_cert_chain(file.name)
    return made


Pattern = Callable[[Target], None]
Chunk = Callable[[int], bytes]
PATTERNS: dict[str, Pattern] = {}
AUTOGROUP = Path("/proc/self/autogroup")


def pattern(made: Pattern) -> Pattern:
    PATTERNS[made.__name__] = made
    return made


def stream(number: int) -> int:
    return 2 * number + 1


def send(target: Target, chunk: Chunk, identity: str = "", reads: bool = True, first: bytes = b"") -> None:
    """Sessions on which chunks are written for as long as they are taken."""
    while target.left > 0:
        with suppress(OSError), target.session(identity or target.allowed) as tls:
            tls.sendall(first)
            number = 0
            while target.left > 0:
                tls.settimeout(max(target.left, 0.01))
                tls.sendall(chunk(number))
                number += 1
                target.chunks += 1
                if reads:
                    drain(tls)


def drain(tls: ssl.SSLSocket) -> None:
    tls.settimeout(0)
    with suppress(ssl.SSLWantReadError, BlockingIOError):
        while True:
            if not tls.recv(1 << 16):
                raise ConnectionResetError


def asking(target: Target, block: bytes, then: Callable[[int], bytes], per_chunk: int = 50) -> Chunk:
    """CONNECTs on ever new streams, each with something behind it."""

    def chunk(number: int) -> bytes:
        ids = (stream(number * per_chunk + each) for each in range(per_chunk))
        return b"".join(push_headers(each, block, False, 16_384) + then(each) for each in ids)

    return chunk


# --- streams ---------------------------------------------------------------------------


@pattern
def rapid_reset(target: Target) -> None:
    send(target, asking(target, target.connect_block(), lambda each: push_reset(each, Code.CANCEL)))


@pattern
def resets_of_streams_that_are_over(target: Target) -> None:
    again = push_reset(1, Code.STREAM_CLOSED) * 1000
    send(target, lambda number: again, first=push_headers(1, target.connect_block(), False, 16_384))


@pattern
def rapid_reset_of_a_denied_identity(target: Target) -> None:
    chunk = asking(target, target.connect_block(), lambda each: push_reset(each, Code.CANCEL))
    send(target, chunk, target.denied)


@pattern
def made_you_reset_by_windows(target: Target) -> None:
    send(target, asking(target, target.connect_block(), lambda each: push_window_update(each, 2**31 - 1)))


@pattern
def made_you_reset_by_fields(target: Target) -> None:
    block = target.connect_block() + push_fields([(b"connection", b"close")])
    send(target, asking(target, block, lambda each: b""))


@pattern
def data_behind_the_end(target: Target) -> None:
    def more(each: int) -> bytes:
        return frame(Frame.DATA, 1, each) + frame(Frame.DATA, 0, each, b"x")

    send(target, asking(target, target.connect_block(), more))


@pattern
def streams_beyond_the_limit(target: Target) -> None:
    send(target, asking(target, target.connect_block(), lambda each: b""))


@pattern
def sessions_that_end_with_their_tunnels(target: Target) -> None:
    block = target.connect_block()
    calls = b"".join(push_headers(stream(each), block, False, 16_384) for each in range(100))
    while target.left > 0:
        with suppress(OSError), target.session(target.allowed) as tls:
            tls.sendall(calls)
            tls.settimeout(max(min(target.left, 1.0), 0.01))
            answered = 0
            while answered < 50 * 10:  # some fifty answers
                answered += len(tls.recv(1 << 16)) or 1 << 16
            target.chunks += 1
            tls.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@pattern
def calls_that_policy_refuses(target: Target) -> None:
    end = lambda each: frame(Frame.DATA, 1, each)  # noqa: E731
    send(target, asking(target, target.connect_block(), end), target.denied)


@pattern
def calls_of_closed_ports(target: Target) -> None:
    end = lambda each: frame(Frame.DATA, 1, each)  # noqa: E731
    send(target, asking(target, target.connect_block(target.closed_port), end, 20))


@pattern
def calls_of_ever_new_ports(target: Target) -> None:
    def chunk(number: int) -> bytes:
        blocks = (
            (each, target.connect_block(20_000 + each % 40_000))
            for each in range(number * 20, number * 20 + 20)
        )
        return b"".join(push_headers(stream(each), block, True, 16_384) for each, block in blocks)

    send(target, chunk)


@pattern
def requests_that_are_none(target: Target) -> None:
    block = push_fields(
        [(b":method", b"GET"), (b":scheme", b"https"), (b":path", b"/"), (b":authority", b"x")]
    )
    send(target, asking(target, block, lambda each: b""))


# --- frames that carry nothing -----------------------------------------------------------


def repeated(octets: bytes, count: int = 500) -> Chunk:
    together = octets * count
    return lambda number: together


@pattern
def pings(target: Target) -> None:
    send(target, repeated(push_ping(bytes(8))))


@pattern
def pings_whose_answers_nobody_reads(target: Target) -> None:
    send(target, repeated(push_ping(bytes(8))), reads=False)


@pattern
def settings(target: Target) -> None:
    send(target, repeated(push_settings({Setting.INITIAL_WINDOW_SIZE: 70_000})))


@pattern
def priorities(target: Target) -> None:
    send(target, repeated(frame(Frame.PRIORITY, 0, 1, bytes(5))))


@pattern
def unknown_frames(target: Target) -> None:
    send(target, repeated(b"\0\0\0\xfa\0\0\0\0\1"))


@pattern
def window_updates(target: Target) -> None:
    send(target, repeated(push_window_update(0, 1)))


@pattern
def goaways(target: Target) -> None:
    send(target, repeated(frame(Frame.GOAWAY, 0, 0, bytes(8))))


def tunnel(target: Target) -> bytes:
    """A tunnel on stream 1."""
    return push_headers(1, target.connect_block(), False, 16_384)


@pattern
def empty_data(target: Target) -> None:
    send(target, repeated(frame(Frame.DATA, 0, 1)), first=tunnel(target))


@pattern
def padding_alone(target: Target) -> None:
    send(target, repeated(frame(Frame.DATA, 8, 1, b"\xff" + bytes(255)), 50), first=tunnel(target))


@pattern
def data_of_one_byte(target: Target) -> None:
    send(target, repeated(frame(Frame.DATA, 0, 1, b"x"), 2000), first=tunnel(target))


# --- header blocks -----------------------------------------------------------------------


@pattern
def references_to_the_table(target: Target) -> None:
    entry = b"\x40\x05x-big" + bytes((50,)) + b"v" * 50
    send(
        target,
        asking(target, target.connect_block() + entry + b"\xbe" * 1800, lambda each: b"", 5),
        target.denied,
    )


@pattern
def references_below_the_limit(target: Target) -> None:
    block = target.connect_block() + b"\x40\x01x\x01y" + b"\xbe" * 100
    send(target, asking(target, block, lambda each: push_reset(each, Code.CANCEL)), target.denied)


@pattern
def huffman_code(target: Target) -> None:
    text = b"\0\x01x\x7f\x81\x5d" + b"\x18" * 12_000
    block = target.connect_block() + text.replace(b"\x7f\x81\x5d", b"\xff\xe1\x5c")
    send(target, asking(target, block, lambda each: push_reset(each, Code.CANCEL), 5), target.denied)


@pattern
def table_sizes(target: Target) -> None:
    block = b"\x20\x3f\xe1\x1f" * 20 + target.connect_block()
    send(target, asking(target, block, lambda each: push_reset(each, Code.CANCEL)))


@pattern
def continuations_of_nothing(target: Target) -> None:
    send(
        target,
        lambda number: (
            frame(Frame.HEADERS, 0, stream(number)) + frame(Frame.CONTINUATION, 0, stream(number)) * 100
        ),
    )


@pattern
def continuations_of_16_kib(target: Target) -> None:
    part = frame(Frame.CONTINUATION, 0, 1, b"\0\x01x\x7f\x81\x7e" + bytes(16_000))
    send(target, lambda number: frame(Frame.HEADERS, 0, 1, target.connect_block()) + part * 4)


# --- connections -------------------------------------------------------------------------


def hold(target: Target, open_one: Callable[[], socket.socket], count: int = 600) -> None:
    """Open so many, keep them, and open others for those that are closed."""
    held: list[socket.socket] = []
    while target.left > 0:
        with suppress(OSError):
            held.append(open_one())
        if len(held) > count:
            held.pop(0).close()


@pattern
def silent_connections(target: Target) -> None:
    hold(target, target.connect)


@pattern
def half_a_handshake(target: Target) -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    hello = context(target.roots, target.allowed).wrap_bio(incoming, outgoing)
    with suppress(ssl.SSLWantReadError):
        hello.do_handshake()
    words = outgoing.read()

    def open_one() -> socket.socket:
        sock = target.connect()
        sock.sendall(words)
        return sock

    hold(target, open_one)


@pattern
def garbage_instead_of_a_handshake(target: Target) -> None:
    while target.left > 0:
        with suppress(OSError), target.connect() as sock:
            sock.sendall(os.urandom(2000))


@pattern
def handshakes_and_no_more(target: Target) -> None:
    client = context(target.roots, target.allowed)
    while target.left > 0:
        with suppress(OSError), client.wrap_socket(target.connect()) as tls:
            tls.sendall(PREFACE)


@pattern
def idle_plaintext_connections(target: Target) -> None:
    hold(target, lambda: target.connect(target.port), 3000)


@pattern
def connections_that_end_with_a_reset(target: Target) -> None:
    while target.left > 0:
        with suppress(OSError), target.connect(target.port) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.sendall(b"x")


def give_way() -> None:
    """Run when hardly anybody else wants to, also where the test is run in real time. The scheduler shares
    the CPU between sessions of processes, and then between the processes of one (sched(7), autogroup)."""
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    before = autogroup_nice()
    with suppress(PermissionError):
        os.setsid()
    os.nice(10)
    if autogroup_nice() is not None:
        AUTOGROUP.write_text(str(min((before or 0) + 10, 19)))


def autogroup_nice() -> int | None:
    """Of this process's session; None where it has none (the file is empty then)."""
    words = AUTOGROUP.read_text().split() if AUTOGROUP.exists() else []
    return int(words[-1]) if words else None


def main() -> None:
    give_way()
    target = Target(**json.loads(sys.argv[2]))
    target.deadline = time.monotonic() + target.seconds
    PATTERNS[sys.argv[1]](target)
    print(json.dumps({"connections": target.connections, "chunks": target.chunks}))


def arguments(target: Target) -> str:
    """The second argument of the program."""
    return json.dumps(asdict(target))


if __name__ == "__main__":
    main()
