import struct

from hypothesis import given
from hypothesis import strategies as st

from ztunnel.demo.claims.hello import TLS_1_3, server_version

SUPPORTED_VERSIONS, KEY_SHARE = 43, 51


def server_hello(version: int, extensions: list[tuple[int, bytes]], session_id: bytes = b"") -> bytes:
    packed = b"".join(struct.pack("!HH", kind, len(body)) + body for kind, body in extensions)
    body = struct.pack("!H", version) + bytes(32) + bytes([len(session_id)]) + session_id + b"\x13\x01\0"
    body += struct.pack("!H", len(packed)) + packed
    handshake = b"\x02" + len(body).to_bytes(3, "big") + body
    return b"\x16\x03\x03" + struct.pack("!H", len(handshake)) + handshake


def test_the_extension_says_which_version_was_chosen() -> None:
    extensions = [(KEY_SHARE, bytes(36)), (SUPPORTED_VERSIONS, struct.pack("!H", TLS_1_3))]
    assert server_version(server_hello(0x0303, extensions, bytes(32)) + b"more") == TLS_1_3


def test_without_the_extension_the_old_field_counts() -> None:
    assert server_version(server_hello(0x0303, [(KEY_SHARE, b"")])) == 0x0303


def test_what_is_no_hello_of_a_server_has_no_version() -> None:
    hello = server_hello(0x0303, [])
    for other in (b"", b"GET / HTTP/1.1", b"\x17" + hello[1:], hello[:5] + b"\x01" + hello[6:], hello[:30]):
        assert server_version(other) is None


@given(st.binary(max_size=200))
def test_garbage_is_no_error(untrusted: bytes) -> None:
    server_version(b"\x16\x03\x03\0\0\x02" + untrusted)
