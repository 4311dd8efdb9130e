"""Routes survive the way there and back; what makes no sense is refused, and says where."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.errors import PeerError
from ztunnel.model.route import ConnectionRule, Routes, RouteSource, Rule
from ztunnel.model.route_action import (
    Destination,
    DirectResponse,
    Edits,
    Forward,
    HeaderEdits,
    PathEdit,
    PathEditKind,
    Redirect,
    RedirectPort,
    Refusal,
    Rewrite,
)
from ztunnel.model.route_match import ClaimMatch, FieldMatch, Match, TextKind, TextMatch
from ztunnel.model.route_policy import MILLION, Abort, Cors, Delay, Fault, Mirror, Retry, RetryOn
from ztunnel.model.service import ServiceName
from ztunnel.xds.pb import routes_pb2 as pb
from ztunnel.xds.routes import parse_routes, render_routes

text = st.text(max_size=6)
name = st.text("abz-", min_size=1, max_size=6)
share = st.integers(0, MILLION)
port = st.integers(0, 65535)
seconds = st.floats(0, 1e6, exclude_min=True)


def some(each: st.SearchStrategy[object]) -> st.SearchStrategy[tuple[object, ...]]:
    return st.lists(each, max_size=2).map(tuple)


texts = st.one_of(
    st.builds(TextMatch, st.sampled_from([TextKind.EXACT, TextKind.PREFIX]), text, st.booleans()),
    st.builds(TextMatch, st.just(TextKind.REGEX), text),
    st.just(TextMatch(TextKind.PRESENT)),
)
paths = st.one_of(texts, name.map(lambda it: TextMatch(TextKind.SEGMENTS, "/" + it)))
fields = st.builds(FieldMatch, name, texts, st.booleans())
matches = st.builds(
    Match,
    text,
    some(port),
    st.none() | paths,
    st.none() | texts,
    st.none() | texts,
    st.none() | texts,
    some(fields),
    some(fields),
    some(st.builds(ClaimMatch, st.lists(name, min_size=1).map(tuple), texts)),
)
pairs = some(st.tuples(name, text))
edits = st.builds(Edits, *[st.builds(HeaderEdits, some(name), pairs, pairs)] * 2)
path_edits = st.one_of(
    st.builds(PathEdit, st.sampled_from([PathEditKind.MATCHED, PathEditKind.SEGMENTS]), text),
    text.map(lambda it: PathEdit(PathEditKind.FULL, "/" + it)),
    st.builds(PathEdit, st.just(PathEditKind.REGEX), text, name),
)
services = st.builds(ServiceName, name, name)
destinations = st.builds(
    Destination,
    services,
    port,
    text,
    pairs.map(lambda it: tuple(sorted(it))),
    st.integers(1, 1000),
    edits,
    text,
    st.none() | st.builds(Refusal, st.sampled_from([500, 503]), text),
)
common = {
    "name": text,
    "source": st.builds(RouteSource, text, text, text),
    "matches": some(matches),
    "edits": edits,
    "fault": st.none()
    | st.builds(
        Fault,
        st.none() | st.builds(Delay, seconds, share),
        st.none()
        | st.builds(Abort, share, st.integers(200, 599))
        | st.builds(Abort, share, st.just(0), st.integers(0, 16)),
    ),
    "cors": st.none()
    | st.builds(
        Cors,
        some(st.builds(TextMatch, st.just(TextKind.EXACT), text)),
        some(text),
        some(text),
        some(text),
        st.none() | st.integers(0, 1000),
        st.booleans(),
        st.booleans(),
    ),
    "timeout_seconds": seconds,
    "try_timeout_seconds": seconds,
}
retries = st.builds(
    Retry,
    st.integers(1, 10),
    st.frozensets(st.sampled_from(RetryOn)).map(lambda it: it | {RetryOn.STATUS_CODES}),
    some(st.integers(400, 599)),
    st.floats(0.001, 1),
    st.floats(1, 2),
    st.booleans(),
)
rules = st.one_of(
    st.builds(
        Rule,
        action=st.builds(Forward, st.lists(destinations, min_size=1, max_size=2).map(tuple)),
        rewrite=st.none() | st.builds(Rewrite, path_edits, text),
        retry=st.none() | retries,
        mirrors=some(st.builds(Mirror, destinations, share)),
        **common,
    ),
    st.builds(
        Rule,
        action=st.builds(
            Redirect,
            st.sampled_from([301, 302, 303, 307, 308]),
            st.sampled_from(["", "http", "https"]),
            text,
            st.none() | path_edits,
            port,
            st.sampled_from(RedirectPort),
        ),
        **common,
    ),
    st.builds(Rule, action=st.builds(DirectResponse, st.integers(200, 599), st.binary(max_size=5)), **common),
)


@given(st.builds(Routes, services, some(rules)))
def test_routes_come_back_as_they_were(routes: Routes) -> None:
    octets = render_routes(routes).SerializeToString()
    assert parse_routes(pb.Routes.FromString(octets)) == routes


SERVICE = pb.ServiceName(namespace="shop", hostname="reviews")
SOURCE = pb.RouteSource(kind="HTTPRoute", namespace="shop", name="reviews")


def with_rule(**said: object) -> pb.Routes:
    rule = pb.RouteRule(name="r", source=SOURCE)
    rule.MergeFrom(pb.RouteRule(**said))  # type: ignore[arg-type]
    return pb.Routes(service=SERVICE, rules=[rule])


def with_connection(**said: object) -> pb.Routes:
    source = pb.RouteSource(kind="TCPRoute", namespace="shop", name="db")
    rule = pb.ConnectionRule(name="c", source=source)
    rule.MergeFrom(pb.ConnectionRule(**said))  # type: ignore[arg-type]
    return pb.Routes(service=SERVICE, connections=[rule])


ANYWHERE = pb.Forward(destinations=[pb.Destination(service=SERVICE, weight=1)])
DIRECT = pb.DirectResponse(status=200)


@pytest.mark.parametrize(
    ("untrusted", "why"),
    [
        (pb.Routes(), "those of a service"),
        (pb.Routes(service=pb.ServiceName(namespace="a")), "those of a service"),
        (with_rule(), "rule 'r' of HTTPRoute shop/reviews: action: of a kind that is not known"),
        (with_rule(direct_response=pb.DirectResponse(status=99)), "200 to 599"),
        (with_rule(forward=pb.Forward()), "has a destination"),
        (with_rule(direct_response=DIRECT, timeout_seconds=-1), "not negative"),
        (with_rule(direct_response=DIRECT, matches=[pb.RouteMatch(path=pb.RouteText(kind="x"))]), "'x'"),
        (with_rule(direct_response=DIRECT, mirrors=[pb.Mirror()]), "only what is sent on"),
        (with_connection(forward=pb.Forward()), "rule 'c' of TCPRoute shop/db: .*has a destination"),
        (with_connection(forward=ANYWHERE, subnets=["10.0.0.1/8"]), "host bits"),
        (with_connection(forward=ANYWHERE, ports=[70000]), "not ports"),
    ],
)
def test_what_makes_no_sense_is_refused(untrusted: pb.Routes, why: str) -> None:
    with pytest.raises(PeerError, match=why):
        parse_routes(untrusted)


@pytest.mark.parametrize("subnets", [(), ("10.0.0.0/8", "fd00::/8")])
def test_rules_for_connections_survive(subnets: tuple[str, ...]) -> None:
    service = ServiceName("shop", "db.shop.svc.cluster.local")
    to = Forward((Destination(service, 5432, "v1", (("v", "1"),), 9), Destination(service, weight=1)))
    source = RouteSource("VirtualService", "shop", "db")
    rule = ConnectionRule("r", source, to, (5432, 5433), tuple(map(ip_network, subnets)))
    routes = Routes(service, (), (rule, ConnectionRule("", source, to)))
    assert parse_routes(pb.Routes.FromString(render_routes(routes).SerializeToString())) == routes


@given(st.binary(max_size=60))
def test_garbage_is_refused_or_means_something(untrusted: bytes) -> None:
    message = pb.Routes()
    try:
        message.ParseFromString(untrusted)
    except Exception:  # noqa: BLE001 - not of this test: the subscriber says that it cannot be decoded
        return
    try:
        parse_routes(message)
    except PeerError:
        return
