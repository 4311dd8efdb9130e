"""CONNECT's header lists, as Istio's ztunnel writes them."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.errors import PeerError
from ztunnel.hbone.request import (
    Baggage,
    ConnectRequest,
    RequestHead,
    TraceContexts,
    calling_port,
    outline_of,
    parse_baggage,
    parse_request,
    parse_response,
    render_baggage,
    render_response,
)
from ztunnel.http2.decoder import FieldReader
from ztunnel.http2.fields import Fields
from ztunnel.model.address import parse_endpoint
from ztunnel.model.workload import Locality, Workload, WorkloadKind

TRACE = "00-" + "a" * 32 + "-" + "b" * 16 + "-00"
SOURCE = parse_endpoint("10.0.0.1:4444")
FULL = ConnectRequest("10.0.0.2:80", "k8s.namespace.name=a", SOURCE, "web.default.svc.cluster.local", TRACE)


def written(request: ConnectRequest) -> Fields:
    """What arrives of a request that we send."""
    assert request.source is not None
    head = RequestHead(request.authority, request.baggage, request.source.ip, request.host)
    return FieldReader(65_536).read(head.render(request.source.port, request.traceparent))


def test_a_request_has_ztunnels_headers() -> None:
    assert written(FULL) == (
        (b":method", b"CONNECT"),
        (b":authority", b"10.0.0.2:80"),
        (b"baggage", b"k8s.namespace.name=a"),
        (b"forwarded", b'for="10.0.0.1:4444";host=web.default.svc.cluster.local'),
        (b"traceparent", TRACE.encode()),
    )


@pytest.mark.parametrize(
    "request_",
    [
        FULL,
        ConnectRequest("10.0.0.2:80", source=SOURCE, traceparent=TRACE),
        ConnectRequest("web.default.svc.cluster.local:80", source=SOURCE, traceparent=TRACE),
        ConnectRequest("[fd00::1]:80", source=parse_endpoint("[fd00::2]:5"), traceparent=TRACE),
    ],
)
def test_a_request_survives_the_round_trip(request_: ConnectRequest) -> None:
    assert parse_request(written(request_)) == request_


CONNECT = (b":method", b"CONNECT")
AUTHORITY = (b":authority", b"10.0.0.2:80")
WRONG = {
    "nothing": (),
    "another method": ((b":method", b"GET"), AUTHORITY),
    "no authority": (CONNECT,),
    "two authorities": (CONNECT, AUTHORITY, AUTHORITY),
    "a path": (CONNECT, AUTHORITY, (b":path", b"/")),
    "a scheme": (CONNECT, AUTHORITY, (b":scheme", b"https")),
    "extended CONNECT": (CONNECT, AUTHORITY, (b":protocol", b"websocket")),
    "an empty authority": (CONNECT, (b":authority", b"")),
    "an authority with a user": (CONNECT, (b":authority", b"user@10.0.0.2:80")),
    "an authority with a line break": (CONNECT, (b":authority", b"10.0.0.2:80\r\n")),
    "an authority that is not text": (CONNECT, (b":authority", b"\xff\xfe:80")),
    "an endless authority": (CONNECT, (b":authority", b"a" * 600)),
    "a pseudo-header behind others": (CONNECT, (b"x", b"y"), AUTHORITY),
}


@pytest.mark.parametrize("fields", WRONG.values(), ids=WRONG.keys())
def test_what_is_not_a_plain_connect_is_a_bad_request(fields: Fields) -> None:
    with pytest.raises(PeerError) as error:
        parse_request(fields)
    assert error.value.reply == 400


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"traceparent", b"00-xyz"),
        (b"traceparent", b"00-" + b"\n" * 52),
        (b"baggage", b"a" * 10_000),
        (b"baggage", b"a=b\x00"),
        (b"forwarded", b'for="nonsense"'),
        (b"forwarded", b";;;=,="),
        (b"x-unknown", b"\xff"),
    ],
)
def test_a_hint_that_is_wrong_is_left_out(name: bytes, value: bytes) -> None:
    assert parse_request((CONNECT, AUTHORITY, (name, value))) == ConnectRequest("10.0.0.2:80")


def test_forwarded_by_others_is_read_as_well() -> None:
    parsed = parse_request(
        (CONNECT, AUTHORITY, (b"forwarded", b'by=x;For="[fd00::1]:80" ;HOST="web", for=1.2.3.4'))
    )
    assert str(parsed.source) == "[fd00::1]:80"
    assert parsed.host == "web"


@given(
    st.lists(st.tuples(st.sampled_from([b":method", b":authority", b"forwarded", b"baggage"]), st.binary()))
)
def test_garbage_is_a_bad_request_or_a_request(fields: list[tuple[bytes, bytes]]) -> None:
    reply = 400
    try:
        parse_request((CONNECT, AUTHORITY, *fields))
    except PeerError as error:
        reply = error.reply
    assert reply == 400


def test_a_traceparent_is_a_w3c_trace_context_and_another_each_time() -> None:
    contexts = TraceContexts(Random(1))
    several = [contexts.new() for _ in range(100)]
    assert len(set(several)) == 100
    for each in several:
        version, trace, span, flags = each.split("-")
        assert (version, len(trace), len(span), flags) == ("00", 32, 16, "00")
        assert int(trace + span, 16)


def test_the_first_digits_of_a_trace_may_be_zeros() -> None:
    class Zeros:
        def getrandbits(self, bits: int) -> int:
            return 1

    contexts = TraceContexts(Zeros())
    assert contexts.new() == f"00-{'0' * 32}-{'0' * 16}-00"


def test_baggage_has_ztunnels_keys_in_ztunnels_order() -> None:
    workload = Workload(
        uid="Kubernetes//Pod/default/web-1",
        name="web-1",
        namespace="default",
        kind=WorkloadKind.DEPLOYMENT,
        workload_name="web",
        canonical_name="web",
        canonical_revision="v2",
        locality=Locality("r", "z"),
    )
    baggage = render_baggage(workload)
    assert baggage == (
        "k8s.cluster.name=Kubernetes,k8s.namespace.name=default,k8s.deployment.name=web,service.name=web,"
        "service.version=v2,cloud.region=r,cloud.availability_zone=z"
    )
    assert parse_baggage(baggage) == Baggage(
        "Kubernetes", "default", WorkloadKind.DEPLOYMENT, "web", "web", "v2", "r", "z"
    )


def test_baggage_leaves_out_what_is_not_known() -> None:
    workload = Workload(uid="u", name="n", namespace="default", cluster="", canonical_revision="")
    assert render_baggage(workload) == "k8s.namespace.name=default"


@given(st.text())
def test_any_baggage_can_be_read(untrusted: str) -> None:
    parse_baggage(untrusted)


def test_baggage_of_others_is_read_with_spaces_and_properties() -> None:
    assert parse_baggage(" service.name = web;p=1 , x=y,z") == Baggage(service="web")


def test_an_answer_carries_a_status_and_baggage() -> None:
    reader = FieldReader(65_536)
    assert reader.read(render_response(401)) == ((b":status", b"401"),)
    answer = reader.read(render_response(200, "service.name=web"))
    assert answer == ((b":status", b"200"), (b"baggage", b"service.name=web"))
    assert parse_response(answer) == Baggage(service="web")
    assert parse_response(reader.read(render_response(200))) == Baggage()


_HEAD = ((b":method", b"CONNECT"), (b":authority", b"10.0.0.1:80"))
_FORWARDED = st.one_of(
    st.binary(max_size=20), st.sampled_from([b'for="10.0.0.2:5"', b"host=x", b'for="a,b";host=y'])
)


def test_the_port_of_the_caller_is_no_part_of_an_outline():
    ours = [(*_HEAD, (b"forwarded", b'for="10.0.0.2:%d";host=web' % port)) for port in (5, 6)]
    assert outline_of(ours[0]) == outline_of(ours[1]) == (b"10.0.0.1:80", b"host=web")


@pytest.mark.parametrize(
    ("forwarded", "port"),
    [
        (b'for="10.0.0.2:41000"', 41000),
        (b'for="[fd00::2]:700";host=web', 700),
        (b"for=10.0.0.2:5;host=web:80", 5),
        (b'for="10.0.0.2:1", for="10.0.0.3:2"', 1),
        (b'for="10.0.0.2:65535"', 65535),
        (b'for="10.0.0.2:65536"', 0),
        (b'for="10.0.0.2:0"', 0),
        (b'for="10.0.0.2:-5"', 0),
        (b'for="10.0.0.2:' + b"9" * 5000 + b'"', 0),
        ('for="10.0.0.2:٣"'.encode(), 0),
        (b'for="10.0.0.2"', 0),
        (b'for="[fd00::2]"', 0),
        (b'for="_hidden"', 0),
        (b"host=web:80", 0),
        (b"", 0),
    ],
)
def test_the_port_of_the_caller_is_a_port_or_none(forwarded, port):
    assert calling_port((*_HEAD, (b"forwarded", forwarded), (b"forwarded", b'for="10.0.0.9:9"'))) == port


def test_a_caller_may_say_nothing_of_itself():
    assert calling_port(_HEAD) == 0


@given(st.binary(max_size=60))
def test_whatever_a_peer_says_is_no_more_than_a_port(forwarded):
    assert 0 <= calling_port((*_HEAD, (b"forwarded", b"for=" + forwarded))) <= 65535


@pytest.mark.parametrize("fields", [(), _HEAD[:1], _HEAD[::-1], (*_HEAD, (b":path", b"/"))])
def test_a_request_of_another_shape_has_no_outline(fields):
    assert outline_of(fields) is None


@given(st.lists(st.lists(_FORWARDED, max_size=2), min_size=2, max_size=2))
def test_requests_of_one_outline_are_read_alike(headers):
    first, second = ((*_HEAD, *((b"forwarded", value) for value in values)) for values in headers)
    if outline_of(first) == outline_of(second):
        one, other = parse_request(first), parse_request(second)
        assert (one.authority, one.host) == (other.authority, other.host)
