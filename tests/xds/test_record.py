"""Fields of values and of messages, both ways; `test_routes` has them all together."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from ztunnel.errors import PeerError
from ztunnel.model.route_match import TextKind, TextMatch
from ztunnel.model.route_policy import Abort, RetryOn
from ztunnel.xds.pb import routes_pb2 as pb
from ztunnel.xds.record import (
    LISTED,
    NETWORKS,
    OPTIONAL,
    PAIRS,
    PLAIN,
    EnumOf,
    Many,
    Maybe,
    OneOf,
    Record,
    SetOf,
)

TEXT = Record(TextMatch, pb.RouteText, kind=EnumOf(TextKind), text=PLAIN, ignore_case=PLAIN)
ABORT = Record(Abort, pb.Abort, per_million=PLAIN, status=PLAIN, grpc_status=OPTIONAL)
A = TextMatch(TextKind.EXACT, "a")


def test_a_record_is_a_message_of_the_same_fields() -> None:
    made = TEXT.render(TextMatch(TextKind.PREFIX, "/a", ignore_case=True))
    assert made == pb.RouteText(kind="prefix", text="/a", ignore_case=True)
    assert TEXT.parse(made) == TextMatch(TextKind.PREFIX, "/a", ignore_case=True)


@pytest.mark.parametrize("status", [0, 14])
def test_a_zero_that_is_said_is_not_a_field_that_is_missing(status: int) -> None:
    assert ABORT.parse(ABORT.render(Abort(1, grpc_status=status))).grpc_status == status
    assert ABORT.parse(ABORT.render(Abort(1, 500))).grpc_status is None


def test_lists_pairs_sets_and_records() -> None:
    match = pb.RouteMatch()
    LISTED.put(match, "ports", (80, 81))
    assert LISTED.get(match, "ports") == (80, 81)
    rule, networks = pb.ConnectionRule(), (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))
    NETWORKS.put(rule, "subnets", networks)
    assert NETWORKS.get(rule, "subnets") == networks
    Maybe(TEXT).put(match, "path", None)
    assert Maybe(TEXT).get(match, "path") is None
    Maybe(TEXT).put(match, "path", A)
    assert Maybe(TEXT).get(match, "path") == A
    cors = pb.Cors()
    Many(TEXT).put(cors, "origins", (A, A))
    assert Many(TEXT).get(cors, "origins") == (A, A)
    edits = pb.HeaderEdits()
    PAIRS.put(edits, "set", (("a", "1"), ("b", "")))
    assert PAIRS.get(edits, "set") == (("a", "1"), ("b", ""))
    retry = pb.Retry()
    SetOf(RetryOn).put(retry, "on", frozenset((RetryOn.RESET, RetryOn.CONNECT_FAILURE)))
    assert list(retry.on) == ["connect-failure", "reset"]
    assert SetOf(RetryOn).get(retry, "on") == {RetryOn.RESET, RetryOn.CONNECT_FAILURE}


def test_what_makes_no_sense_is_the_peers_error() -> None:
    with pytest.raises(PeerError, match="mood"):
        TEXT.parse(pb.RouteText(kind="mood"))
    with pytest.raises(PeerError, match="HTTP or one of gRPC"):
        ABORT.parse(pb.Abort(per_million=1))
    with pytest.raises(ValueError, match="of a kind that is not known"):
        OneOf(forward=(TextMatch, TEXT)).get(pb.RouteRule(), "action")
