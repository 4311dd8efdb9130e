"""Values with operators in them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.l7.substitution import Facts, Value

FACTS = Facts(
    {b"x-user": b"jason", b":path": b"/a?b"}.get, {b"server": b"nginx"}.get, "HTTP/2", "[fd00::1]:4000",
    "10.0.0.9:80", "spiffe://td/ns/a/sa/b", "v1.all", "10.0.0.2:8080", 200,
)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", b"plain"),
        ("100%%", b"100%"),
        ("%REQ(X-User)%", b"jason"),
        ("a %REQ(x-none)% b", b"a  b"),
        ("%REQ(x-none?x-user)%", b"jason"),
        ("%REQ(x-user):3%", b"jas"),
        ("%REQ(:PATH)%", b"/a?b"),
        ("%RESP(server)%", b"nginx"),
        ("%PROTOCOL% %RESPONSE_CODE%", b"HTTP/2 200"),
        ("%DOWNSTREAM_REMOTE_ADDRESS%", b"[fd00::1]:4000"),
        ("%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", b"fd00::1"),
        ("%DOWNSTREAM_LOCAL_ADDRESS%", b"10.0.0.9:80"),
        ("%DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT%", b"10.0.0.9"),
        ("%DOWNSTREAM_LOCAL_PORT%", b"80"),
        ("%DOWNSTREAM_PEER_URI_SAN%", b"spiffe://td/ns/a/sa/b"),
        ("%UPSTREAM_HOST%", b"10.0.0.2:8080"),
        ("%ROUTE_NAME%", b"v1.all"),
    ],
)
def test_operators_stand_for_what_they_name(text: str, expected: bytes) -> None:
    assert Value(text).text(FACTS) == expected


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("50%", "is doubled"),
        ("%REQ(x-user%", "is doubled"),
        ("%HOSTNAME%", "there is no %HOSTNAME%"),
        ("%REQ%", "names a header"),
        ("%REQ(a b)%", "names a header"),
        ("%REQ(a?b?c)%", "names a header"),
        ("%PROTOCOL(x)%", "no argument"),
        ("a\r\nb: c", "not the value"),
        ("a\x00", "not the value"),
        ("a" * 9000, "not the value"),
    ],
)
def test_what_makes_no_sense_is_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Value(text)


@given(st.text(st.characters(min_codepoint=32, exclude_characters="\x7f", codec="utf-8"), max_size=40))
def test_a_text_whose_percent_signs_are_doubled_stands_for_itself(text: str) -> None:
    made = Value(text.replace("%", "%%"))
    assert made.text(FACTS) == text.encode()
