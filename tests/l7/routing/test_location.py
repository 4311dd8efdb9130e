"""Where redirects lead: Envoy's rules of ports, and those of HTTPRoute."""

from __future__ import annotations

import pytest

from ztunnel.l7.routing.location import Location
from ztunnel.model.route_action import PathEdit, PathEditKind, Redirect, RedirectPort
from ztunnel.model.route_match import TextKind, TextMatch

FROM_SCHEME, FROM_REQUEST = RedirectPort.SCHEME, RedirectPort.REQUEST
XYZ = PathEdit(PathEditKind.SEGMENTS, "/xyz")


@pytest.mark.parametrize(
    ("redirect", "authority", "expected"),
    [
        (Redirect(), b"a.b", b"http://a.b/foo/bar?q"),
        (Redirect(), b"a.b:8080", b"http://a.b:8080/foo/bar?q"),
        (Redirect(), b"a.b:80", b"http://a.b/foo/bar?q"),
        (Redirect(scheme="https"), b"a.b", b"https://a.b/foo/bar?q"),
        (Redirect(scheme="https"), b"a.b:80", b"https://a.b/foo/bar?q"),
        (Redirect(scheme="https"), b"a.b:8080", b"https://a.b:8080/foo/bar?q"),
        (Redirect(scheme="https"), b"a.b:443", b"https://a.b/foo/bar?q"),
        (Redirect(authority="c.d"), b"a.b:8080", b"http://c.d/foo/bar?q"),
        (Redirect(authority="c.d:80"), b"a.b", b"http://c.d/foo/bar?q"),
        (Redirect(authority="c.d:90"), b"a.b", b"http://c.d:90/foo/bar?q"),
        (Redirect(port=8443), b"a.b:8080", b"http://a.b:8443/foo/bar?q"),
        (Redirect(port=80), b"a.b:8080", b"http://a.b/foo/bar?q"),
        (Redirect(port=80, scheme="https"), b"a.b", b"https://a.b:80/foo/bar?q"),
        (Redirect(port_from=FROM_SCHEME), b"a.b:8080", b"http://a.b/foo/bar?q"),
        (Redirect(port_from=FROM_SCHEME, scheme="https"), b"a.b:80", b"https://a.b/foo/bar?q"),
        (Redirect(port_from=FROM_REQUEST), b"a.b", b"http://a.b:9080/foo/bar?q"),
        (Redirect(port_from=FROM_REQUEST, authority="c.d"), b"a.b", b"http://c.d:9080/foo/bar?q"),
        (Redirect(path=PathEdit(PathEditKind.FULL, "/x")), b"a.b", b"http://a.b/x?q"),
        (Redirect(path=PathEdit(PathEditKind.FULL, "/x?y")), b"a.b", b"http://a.b/x?y"),
        (Redirect(path=XYZ), b"a.b", b"http://a.b/xyz/bar?q"),
        (Redirect(), b"[fd00::1]:8080", b"http://[fd00::1]:8080/foo/bar?q"),
        (Redirect(port=90), b"[fd00::1]", b"http://[fd00::1]:90/foo/bar?q"),
    ],
)
def test_a_redirect_leads_there(redirect: Redirect, authority: bytes, expected: bytes) -> None:
    made = Location(redirect, TextMatch(TextKind.SEGMENTS, "/foo"))
    assert made.of(b"http", authority, b"/foo/bar?q", 9080) == expected
    assert made.status == redirect.status


@pytest.mark.parametrize(
    ("authority", "expected"),
    [(b"a.b", b"https://a.b/foo"), (b"a.b:443", b"https://a.b/foo"), (b"a.b:8443", b"https://a.b:8443/foo")],
)
def test_a_client_of_https_is_led_to_the_port_that_it_called(authority: bytes, expected: bytes) -> None:
    """The service's is behind the gateway that ends its TLS."""
    made = Location(Redirect(port_from=FROM_REQUEST), None)
    assert made.of(b"https", authority, b"/foo", 80) == expected


@pytest.mark.parametrize("authority", ["a b", "a/b", "a\r\nx: y", "a:b", "a@b"])
def test_what_is_no_host_is_refused(authority: str) -> None:
    with pytest.raises(ValueError, match="to a host"):
        Location(Redirect(authority=authority), None)
