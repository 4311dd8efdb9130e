"""One spelling of each address, and nothing but PeerError for garbage."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.errors import PeerError
from ztunnel.model.address import (
    Endpoint,
    IPAddress,
    OriginalDestination,
    PeerAddress,
    canonical,
    ip_text,
    pack16,
    parse_endpoint,
    parse_ip,
    parse_packed,
)

ips = st.ip_addresses()
ports = st.integers(1, 65535)
almost_ip = st.text(alphabet="0123456789abcdef:.[]%/", max_size=50)


@given(ips)
def test_an_address_has_one_spelling(ip: IPAddress) -> None:
    one = canonical(ip)
    assert canonical(one) == one
    assert parse_ip(str(ip)) == one
    assert parse_packed(ip.packed) == one
    assert parse_packed(pack16(one)) == one
    assert len(pack16(ip)) == 16


@given(st.ip_addresses(v=4))
def test_a_mapped_address_is_the_one_that_it_maps(ip: IPv4Address) -> None:
    mapped = ip_address(f"::ffff:{ip}")
    assert canonical(mapped) == parse_ip(str(mapped)) == parse_packed(mapped.packed) == ip
    assert pack16(ip) == mapped.packed


@given(ips)
def test_text_is_the_standard_librarys(ip: IPAddress) -> None:
    assert ip_text(ip) == str(ip)


@given(ips, ports)
def test_an_endpoint_survives_its_text(ip: IPAddress, port: int) -> None:
    endpoint = Endpoint(canonical(ip), port)
    assert parse_endpoint(str(endpoint)) == endpoint


@given(st.one_of(st.text(max_size=60), almost_ip))
def test_garbage_is_a_peers_error(untrusted: str) -> None:
    for parse in (parse_ip, parse_endpoint):
        try:
            parsed = parse(untrusted)
        except PeerError:
            continue
        again = parse(str(parsed))
        assert again == parsed


@given(st.binary(max_size=20))
def test_packed_garbage_is_a_peers_error(untrusted: bytes) -> None:
    if len(untrusted) in (4, 16):
        assert isinstance(parse_packed(untrusted), IPv4Address | IPv6Address)
    else:
        with pytest.raises(PeerError, match=f"not {len(untrusted)}"):
            parse_packed(untrusted)


@pytest.mark.parametrize(
    "untrusted",
    ["fe80::1%eth0", "::1%lo", "1.2.3", "1.2.3.4.5", "01.2.3.4", "1.2.3.256", " 1.2.3.4", "1.2.3.4\n", "",
     "x", "::g", "1.2.3.4/32", "１.2.3.4", "1.2.3.4\0"],
)  # fmt: skip
def test_it_is_no_address(untrusted: str) -> None:
    with pytest.raises(PeerError):
        parse_ip(untrusted)


@pytest.mark.parametrize(
    "untrusted",
    ["", ":", "1.2.3.4", "1.2.3.4:", "1.2.3.4:0", "1.2.3.4:65536", "1.2.3.4:+80", "1.2.3.4:-1", "1.2.3.4: 80",
     "1.2.3.4:8_0", "1.2.3.4:٨٠", "1.2.3.4:²", "::1:80", "[::1]", "[::1]:", "[1.2.3.4]:80", "[::1:80",
     "::1]:80", "[[::1]]:80", "[fe80::1%eth0]:80", "localhost:80", "1.2.3.4:80:90", "1.2.3.4:" + "9" * 5000],
)  # fmt: skip
def test_it_is_no_endpoint(untrusted: str) -> None:
    with pytest.raises(PeerError):
        parse_endpoint(untrusted)


def test_an_endpoint_prints_as_istio_logs_it() -> None:
    assert str(parse_endpoint("10.0.0.1:80")) == "10.0.0.1:80"
    assert str(parse_endpoint("[FD00:0::1]:080")) == "[fd00::1]:80"
    assert str(parse_endpoint("[::ffff:10.0.0.1]:80")) == "10.0.0.1:80"


def test_roles_are_types() -> None:
    ip = ip_address("10.0.0.1")
    assert PeerAddress(ip, 80) == PeerAddress(ip, 80)
    assert PeerAddress(ip, 80) != OriginalDestination(ip, 80)
    assert PeerAddress(ip, 80) != Endpoint(ip, 80)
    assert str(PeerAddress(ip, 80)) == "10.0.0.1:80"
    assert isinstance(OriginalDestination(ip, 80), Endpoint)


@given(st.ip_addresses(), st.ip_addresses(), st.integers(0, 65535), st.integers(0, 65535))
def test_endpoints_are_compared_by_address_and_port(
    one: IPv4Address | IPv6Address, other: IPv4Address | IPv6Address, port: int, another: int
) -> None:
    again = Endpoint(type(one)(int(one)), port)
    assert Endpoint(one, port) == again
    assert hash(Endpoint(one, port)) == hash(again)
    assert (Endpoint(one, port) == Endpoint(other, another)) == ((one, port) == (other, another))
    assert Endpoint(one, port) != (one, port)
    if one.version == other.version:
        assert (Endpoint(one, port) < Endpoint(other, another)) == ((one, port) < (other, another))


def test_an_address_is_spelt_by_its_value_however_many_there_are() -> None:
    for number in range(10_000):
        for ip in (IPv4Address(number * 400_000), IPv6Address(number << 100 | number)):
            assert ip_text(ip) == str(ip)
            expected = ip.packed if ip.version == 6 else bytes(10) + b"\xff\xff" + ip.packed
            assert pack16(ip) == expected
            assert ip_text(ip) == str(ip)  # remembered by now
