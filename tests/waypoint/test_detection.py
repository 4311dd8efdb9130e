"""What is spoken is told by the first bytes, in whatever pieces they come."""

from __future__ import annotations

import pytest

from tests.waypoint.rig import Wire
from ztunnel.http2.frame import PREFACE
from ztunnel.waypoint.detection import Detector, Spoken, spoken

CASES = [
    (PREFACE + b"more", Spoken.HTTP2),
    (b"GET / HTTP/1.1\r\nHost: a\r\n", Spoken.HTTP1),
    (b"OPTIONS * HTTP/1.0\r\n", Spoken.HTTP1),
    (b"PRI * HTTP/1.1\r\n", Spoken.HTTP1),
    (b"\x16\x03\x01\x00\xa5\x01", Spoken.OTHER),
    (b"SSH-2.0-OpenSSH_9\r\n", Spoken.OTHER),
    (b"GET / HTTP/2.0\r\n", Spoken.OTHER),
    (b"PING\r\n", Spoken.OTHER),
    (b"*1\r\n$4\r\nPING\r\n", Spoken.OTHER),
    (b"GET x y z\r\n", Spoken.OTHER),
    (b"A" * 40, Spoken.OTHER),
    (b"GET /" + b"a" * 9000, Spoken.OTHER),
]


@pytest.mark.parametrize(("octets", "expected"), CASES)
def test_the_first_bytes_tell(octets: bytes, expected: Spoken) -> None:
    found = None
    for stop in range(1, len(octets) + 1):
        found = spoken(octets[:stop], declared=False)
        if found is not None:
            break
    assert found is expected
    assert spoken(octets, declared=False) is expected


def test_where_it_is_declared_only_the_version_is_asked() -> None:
    assert spoken(PREFACE[:10], declared=True) is None
    assert spoken(PREFACE, declared=True) is Spoken.HTTP2
    assert spoken(b"\x16\x03", declared=True) is Spoken.HTTP1
    assert spoken(b"POST", declared=True) is Spoken.HTTP1


class Next:
    """Whoever is next."""

    def __init__(self) -> None:
        self.heard: list = []

    def received(self, untrusted) -> None:
        self.heard.append(bytes(untrusted))

    def ended(self) -> None:
        self.heard.append("ended")

    def writable(self) -> None:
        self.heard.append("writable")

    def lost(self, error) -> None:
        self.heard.append("lost")


def test_who_is_next_gets_all_of_it() -> None:
    found, after = [], Next()
    detector = Detector(Wire(), False, lambda what: found.append(what) or after)
    detector.writable()
    detector.received(memoryview(b"GET / HT"))
    detector.received(memoryview(b"TP/1.1\r\n"))
    detector.received(memoryview(b"more"))
    detector.writable()
    detector.ended()
    detector.lost(None)
    assert found == [Spoken.HTTP1]
    assert after.heard == [b"GET / HTTP/1.1\r\n", b"more", "writable", "ended", "lost"]
    assert not detector.silent()


def test_who_says_nothing_waits_for_the_server() -> None:
    found: list[Spoken] = []
    detector = Detector(Wire(), False, found.append)
    assert detector.silent()
    assert found == [Spoken.OTHER]
    # The server is not here yet: what comes meanwhile is kept.
    detector.received(memoryview(b"late"))
    detector.ended()
    after = Next()
    detector.attach(after)
    assert after.heard == [b"late", "ended"]
    assert not detector.silent()


def test_who_ends_or_goes_before_it_is_told() -> None:
    found: list[Spoken] = []
    detector = Detector(Wire(), False, found.append)
    detector.received(memoryview(b"GET"))
    detector.ended()
    assert found == [Spoken.OTHER]
    detector = Detector(Wire(), False, found.append)
    detector.lost(None)
    assert not detector.silent()
    after = Next()
    detector.attach(after)
    assert after.heard == ["lost"]
