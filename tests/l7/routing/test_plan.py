"""What becomes of a request, for every action of a rule and all that goes with it."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from ztunnel.http1.head import Fields
from ztunnel.l7.request import Request
from ztunnel.l7.routing.plan import NO_FACTS, UNROUTED, Plan, Unrouted, grpc_timeout, plan
from ztunnel.l7.routing.retry import DEFAULT, DEFAULT_OF_CALLS, Loss, Retries
from ztunnel.l7.routing.route import Route
from ztunnel.model.route import RouteSource, Rule
from ztunnel.model.route_action import (
    Destination,
    DirectResponse,
    Edits,
    Forward,
    HeaderEdits,
    PathEdit,
    PathEditKind,
    Redirect,
    Refusal,
    Rewrite,
)
from ztunnel.model.route_match import Match, TextKind, TextMatch
from ztunnel.model.route_policy import ISTIO_RETRY, MILLION, Abort, Cors, Delay, Fault, Mirror, RetryDefault
from ztunnel.model.service import ServiceName

SOURCE = RouteSource("VirtualService", "shop", "reviews")
V1 = Destination(ServiceName("shop", "reviews"), 9080, "v1")
V2 = Destination(ServiceName("shop", "reviews"), 9080, "v2")
TO_V1 = Forward((V1,))
PREFIX = Match(path=TextMatch(TextKind.PREFIX, "/old"))
USER = (b"x-user", b"jason")
OK = ((b":status", b"200"), (b"server", b"nginx"))
FACTS = NO_FACTS._replace(remote="10.0.0.2:4000", principal="spiffe://td/ns/a/sa/b")
GRPC = (b"content-type", b"application/grpc")


def asks(path: str = "/old/a?q", *fields: tuple[bytes, bytes], method: str = "GET") -> Request:
    return Request(method.encode(), b"reviews:9080", path.encode(), [USER, *fields])


def planned(
    rule: Rule, request: Request | None = None, match: Match = PREFIX, rng: Random | None = None
) -> Plan:
    return plan(Route(rule, match), request or asks(), FACTS, 9080, rng or Random(1))


def rule(action: object = TO_V1, **more: object) -> Rule:
    return Rule("r", SOURCE, action, **more)  # type: ignore[arg-type]


def test_no_rule_is_404_and_no_routes_are_no_rule() -> None:
    made = plan(None, asks(), FACTS, 80, Random(1))
    assert made.reply is not None
    assert (made.reply.status, made.reply.flag, made.reply.details) == (404, "NR", "route_not_found")
    made = UNROUTED.of(asks())
    assert (made.name, made.reply, made.retry, made.timeout_seconds) == ("default", None, DEFAULT, 0)


@pytest.mark.parametrize("more", [(), ((b"grpc-timeout", b"3S"),)])
def test_calls_without_routes_are_tried_again_as_those_with_rules(more) -> None:
    made = UNROUTED.of(asks("/a.B/C", (b"content-type", b"application/grpc"), *more))
    assert (made.retry, made.timeout_seconds) == (DEFAULT_OF_CALLS, 3 if more else 0)
    retries = Retries(made.retry)
    assert retries.after_response(((b":status", b"200"), (b"grpc-status", b"14")))
    assert not retries.after_response(((b":status", b"200"), (b"grpc-status", b"13")))
    assert retries.after_loss(Loss.REFUSED, unsent=True)
    assert not retries.after_loss(Loss.RESET, unsent=False)


@pytest.mark.parametrize("said", [RetryDefault(None), RetryDefault(ISTIO_RETRY, 1.5)])
def test_what_counts_for_the_mesh_counts_for_requests_and_calls_without_routes(said: RetryDefault) -> None:
    them, both = Unrouted(said), (said.retry, said.try_seconds)
    for request in (asks(), asks("/a.B/C", (b"content-type", b"application/grpc"))):
        made = them.of(request)
        assert (made.retry, made.try_timeout_seconds, made.timeout_seconds) == (*both, 0)
    hurried = asks("/a.B/C", (b"content-type", b"application/grpc"), (b"grpc-timeout", b"3S"))
    made = them.of(hurried)
    assert (made.retry, made.try_timeout_seconds, made.timeout_seconds) == (*both, 3)


def test_a_request_is_sent_with_all_that_its_rule_says() -> None:
    made = planned(rule(timeout_seconds=3, try_timeout_seconds=1, retry=ISTIO_RETRY))
    assert (made.name, made.destination, made.reply, made.request) == ("r", V1, None, None)
    assert (made.timeout_seconds, made.try_timeout_seconds, made.retry) == (3, 1, ISTIO_RETRY)
    assert made.edit(OK, "10.0.0.3:9080") is OK


def test_shares_of_requests_go_to_each_destination() -> None:
    two = Forward((Destination(V1.service, weight=80), Destination(V2.service, subset="v2", weight=20)))
    rng = Random(1)
    counts = Counter(planned(rule(two), rng=rng).destination for _ in range(2000))
    assert 310 < counts[two.destinations[1]] < 490


@pytest.mark.parametrize("status", [500, 503])
def test_a_destination_that_cannot_be_used_is_answered(status: int) -> None:
    bad = Destination(V1.service, refusal=Refusal(status, "BackendNotFound"))
    made = planned(rule(Forward((bad,))))
    assert made.reply is not None
    assert (made.reply.status, made.reply.flag, made.reply.details) == (status, "NC", "cluster_not_found")


def test_a_request_is_sent_otherwise_than_it_came_and_stays_as_it_came() -> None:
    edits = Edits(HeaderEdits(set=(("x-from", "%DOWNSTREAM_REMOTE_ADDRESS%"), ("x-path", "%REQ(:path)%"))))
    own = Edits(HeaderEdits(remove=("x-user",), add=(("x-from", "v1"),)))
    to = Destination(V1.service, edits=own, authority="v1.host")
    request = asks()
    made = planned(
        rule(Forward((to,)), edits=edits, rewrite=Rewrite(PathEdit(PathEditKind.MATCHED, "/new"))), request
    )
    sent = made.request
    assert sent is not None
    assert (sent.path, sent.authority) == (b"/new/a?q", b"v1.host")
    assert sent.fields == [
        (b"x-envoy-original-path", b"/old/a?q"),
        (b"x-from", b"10.0.0.2:4000"),
        (b"x-path", b"/old/a?q"),
        (b"x-from", b"v1"),
    ]
    assert (request.path, request.authority, request.fields) == (b"/old/a?q", b"reviews:9080", [USER])


def test_the_rules_authority_goes_before_the_destinations() -> None:
    to = Destination(V1.service, authority="v1.host")
    made = planned(rule(Forward((to,)), rewrite=Rewrite(authority="new.host")))
    assert made.request is not None
    assert made.request.authority == b"new.host"


def test_a_rewrite_that_makes_no_path_is_answered() -> None:
    made = planned(rule(rewrite=Rewrite(PathEdit(PathEditKind.MATCHED, "new"))))
    assert made.reply is not None
    assert (made.reply.status, made.reply.details) == (500, "path_rewrite_failed")


def test_redirects_and_direct_responses_have_the_rules_edits() -> None:
    edits = Edits(response=HeaderEdits(set=(("x-rule", "%ROUTE_NAME% %RESPONSE_CODE%"),)))
    made = planned(rule(Redirect(302, authority="b.c"), edits=edits))
    assert made.reply is not None
    assert (made.reply.status, made.reply.details) == (302, "direct_response")
    assert made.reply.fields == ((b"location", b"http://b.c/old/a?q"),)
    assert made.edit(((b":status", b"302"),)) == ((b":status", b"302"), (b"x-rule", b"r 302"))
    made = planned(rule(DirectResponse(418, b"\xff"), edits=edits))
    assert made.reply is not None
    assert (made.reply.status, made.reply.payload) == (418, b"\xff")


def test_a_response_of_a_server_is_edited_by_the_rule_then_by_the_destination() -> None:
    edits = Edits(response=HeaderEdits(remove=("server",), add=(("x-up", "%UPSTREAM_HOST%"),)))
    own = Edits(response=HeaderEdits(set=(("x-up", "%RESP(server)%"),)))
    made = planned(rule(Forward((Destination(V1.service, edits=own),)), edits=edits))
    assert made.edit(OK, "10.0.0.3:80") == ((b":status", b"200"), (b"x-up", b"nginx"))
    assert made.edit(OK) == OK  # one of ours


def test_faults_delay_first_and_then_abort() -> None:
    both = Fault(Delay(7, MILLION), Abort(MILLION, 555))
    made = planned(rule(fault=both))
    assert made.delay_seconds == 7
    assert made.reply is not None
    assert (made.reply.status, made.reply.flag, made.reply.body) == (555, "FI", "fault filter abort")
    made = planned(rule(fault=Fault(Delay(7, 0), Abort(0, 555))))
    assert (made.delay_seconds, made.reply) == (0, None)
    made = planned(rule(fault=Fault(abort=Abort(MILLION, grpc_status=14))))
    assert made.reply is not None
    assert (made.reply.status, made.reply.grpc_status) == (200, 14)


def test_a_share_of_the_requests_is_mirrored() -> None:
    nowhere = Mirror(Destination(V2.service, refusal=Refusal(500, "no")))
    rng = Random(1)
    made = [
        planned(rule(mirrors=(Mirror(V2, MILLION // 4), Mirror(V1), nowhere)), rng=rng) for _ in range(800)
    ]
    assert all(V1 in each.mirrors for each in made)
    assert 140 < sum(V2 in each.mirrors for each in made) < 260


ORIGIN = (b"origin", b"https://a.b")
PREFLIGHT = (b"access-control-request-method", b"GET")
CORS = Cors((TextMatch(TextKind.EXACT, "https://a.b"),))
SHARED = ((b"access-control-allow-origin", b"https://a.b"), (b"vary", b"origin"))


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (asks("/old", ORIGIN, PREFLIGHT, method="OPTIONS"), SHARED),
        (asks("/old", (b"origin", b"https://x"), PREFLIGHT, method="OPTIONS"), None),
        (asks("/old", ORIGIN, method="OPTIONS"), None),
    ],
)
def test_preflights_are_answered_before_faults(request_: Request, expected: Fields | None) -> None:
    made = planned(rule(cors=CORS, fault=Fault(abort=Abort(MILLION, 500))), request_)
    assert made.reply is not None
    assert (made.reply.fields if made.reply.status == 200 else None) == expected


def test_responses_of_all_kinds_are_shared_with_an_origin_that_is_allowed() -> None:
    made = planned(rule(cors=CORS), asks("/old", ORIGIN))
    assert made.edit(OK, "there") == (*OK, *SHARED)
    assert made.edit(OK) == (*OK, *SHARED)
    made = planned(rule(cors=CORS), asks("/old", (b"origin", b"https://x")))
    assert made.edit(OK, "there") == OK


@pytest.mark.parametrize(
    ("said", "most", "expected"),
    [("5S", 0, 5), ("5S", 3, 3), ("100m", 3, 0.1), ("2M", 0, 120), ("", 3, 3), ("5", 3, 3), ("xS", 3, 3),
     ("123456789S", 3, 3), ("1H", 0, 3600), ("1u", 0, 1e-6), ("1n", 0, 1e-9)],
)  # fmt: skip
def test_the_time_of_a_grpc_client_counts_where_it_is_less(said: str, most: float, expected: float) -> None:
    request = asks("/a", GRPC, (b"grpc-timeout", said.encode()))
    assert grpc_timeout(request, most) == pytest.approx(expected)
    assert grpc_timeout(asks("/a", (b"grpc-timeout", b"1S")), most) == most
