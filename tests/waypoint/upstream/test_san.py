"""Names of certificates."""

import pytest

from ztunnel.waypoint.upstream.san import check_names


def certificate(*names):
    return {"subject": ((("commonName", "a.example"),),), "subjectAltName": names}


A = certificate(("DNS", "a.example"), ("URI", "spiffe://a/b"), ("IP Address", "10.0.0.1"))
V6 = certificate(("IP Address", "FD00:0:0:0:0:0:0:1"))
WILD = certificate(("DNS", "*.b.example"))
CASES = [
    (A, [], "a.example", True),
    (A, [], "A.Example.", True),
    (A, [], "b.example", False),
    (A, [], "", True),
    (A, ["a.example"], "other.example", True),
    (A, ["spiffe://a/b"], "other.example", True),
    (A, ["spiffe://a/B"], "a.example", False),
    (A, ["x", "10.0.0.1"], "", True),
    (A, ["10.0.0.2"], "a.example", False),
    (V6, ["fd00::1"], "", True),
    (V6, [], "fd00::1", True),
    (WILD, [], "x.b.example", True),
    (WILD, [], "x.y.b.example", False),
    (WILD, [], "b.example", False),
    (certificate(("DNS", "*.example")), [], "a.example", False),
    (certificate(("DNS", "a*.example")), [], "ab.example", False),
    (certificate(), [], "a.example", False),  # the common name counts for nothing
    ({}, ["a.example"], "", False),
]


@pytest.mark.parametrize(("cert", "wanted", "name", "fits"), CASES)
def test_for_whom_a_certificate_is(cert, wanted, name, fits):
    assert (check_names(cert, wanted, name) == "") == fits


def test_a_refusal_names_both():
    assert check_names(A, ["x", "y"], "") == (
        "the server's certificate is for a.example, spiffe://a/b, 10.0.0.1, not for x or y"
    )
    assert "is for no names, not for z" in check_names({}, [], "z")
