from __future__ import annotations

from ztunnel.model.address import PeerAddress, parse_endpoint
from ztunnel.redirect.held import HELD, HeldEvent, pull_held, push_held
from ztunnel.redirect.layout import pack16, push_caller

PEER, ASKED = parse_endpoint("10.0.0.1:40000"), parse_endpoint("[fd00::9]:443")


def packed(event: HeldEvent, syn: bytes) -> bytes:
    ends = pack16(PEER.ip), PEER.port, 61500
    return HELD.pack(7, *ends, pack16(ASKED.ip), ASKED.port, bytes(16), 0, event, len(syn), syn)


def test_a_call_that_waits_is_read() -> None:
    held = pull_held(packed(HeldEvent.CALLED, b"a syn"))
    assert (held.cookie, held.peer, held.gave_up) == (7, PeerAddress(PEER.ip, PEER.port), False)
    assert held.caller == push_caller(7, PEER, 61500)
    assert held.syn == b"a syn"
    assert held.destination[:20] == pack16(ASKED.ip) + (443).to_bytes(2, "little") + bytes(2)


def test_one_that_waits_no_longer_has_no_packet() -> None:
    held = pull_held(packed(HeldEvent.GAVE_UP, b""))
    assert (held.gave_up, held.syn) == (True, b"")


def test_a_call_that_waits_is_written_as_it_is_read() -> None:
    held = pull_held(packed(HeldEvent.CALLED, bytes(range(60))))
    again = pull_held(push_held(held))
    assert (again.caller, again.cookie, again.peer) == (held.caller, held.cookie, held.peer)
    assert (again.gave_up, again.destination, again.syn) == (False, held.destination, held.syn)
    assert len(push_held(held)) == HELD.size
