"""What Istio's documentation and the Gateway API's conformance tests show of routing is what is decided: the
tables of tests/documented, translated, and asked by the code that a waypoint asks."""

from __future__ import annotations

from functools import cache
from random import Random

import pytest

from tests.documented.cases import BACKENDS, REFUSED, Case, Outcome, Table, check, check_shares, tables
from ztunnel.control.settings import MeshSettings
from ztunnel.control.source.inventory import Inventory, gather
from ztunnel.control.translation import Translation, translate
from ztunnel.http1.head import Fields
from ztunnel.l7.reply import Reply, render
from ztunnel.l7.request import Request
from ztunnel.l7.routing.plan import NO_FACTS, UNROUTED, Plan, plan
from ztunnel.l7.routing.retry import Loss, Retries
from ztunnel.l7.routing.router import Router, decide_about
from ztunnel.model.address import IPv4Address
from ztunnel.model.route import Routes
from ztunnel.model.route_action import Destination

TABLES = list(tables())
CASES = [
    pytest.param(table, case, id=f"{table.name}-{number}")
    for table in TABLES
    for number, case in enumerate(table.cases)
]
MANY = 2000
CUT_OFF = -503
"""A status of the waypoint's own."""

WAYPOINT = (
    "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: wp, namespace: shop}\n"
    "spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}\n---\n"
)


@cache
def translated(table: str) -> Translation:
    (one,) = (each for each in TABLES if each.name == table)
    found = gather({"backends.yaml": BACKENDS + WAYPOINT, "x.yaml": one.objects}, Inventory())
    assert found.faults == ()
    return translate(found, MeshSettings())


def routes_of(case: Case, table: str) -> Routes | None:
    return translated(table).routes.get(f"shop/{host_of(case)}")


def host_of(case: Case) -> str:
    return case.service if "." in case.service else f"{case.service}.shop.svc.cluster.local"


def version_of(one: Destination | None, case: Case) -> str:
    if one is None:
        return "any"
    if one.service.hostname == host_of(case):
        return dict(one.labels).get("version", "any")
    return one.service.hostname.partition(".")[0]


def answered(made: Plan, reply: Reply, case: Case) -> Outcome:
    fields, body = render(reply, case.is_grpc)
    got = as_text(made.edit(fields))
    grpc = int(got["grpc-status"]) if "grpc-status" in got else -1
    return Outcome(
        "", int(got[":status"]), grpc, {}, got, body.decode(), 0, made.delay_seconds, (), made.name
    )


def as_text(fields: Fields) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in fields:
        before = found.get(name.decode())
        found[name.decode()] = value.decode() if before is None else f"{before},{value.decode()}"
    return found


def tried(made: Plan, case: Case, rng: Random) -> tuple[int, int]:
    """How often it is sent, and with which status (of gRPC, for a call of that) its client is left."""
    retries, tries, spent = Retries(made.retry), 0, 0.0
    why: Fields = ((b"x-envoy-ratelimited", b"true"),) * case.limited
    while True:
        wait = case.waits[tries] if tries < len(case.waits) else 0.0
        status = case.fails[tries] if tries < len(case.fails) else 0 if case.is_grpc else 200
        tries += 1
        limit = made.try_timeout_seconds or wait
        spent += min(wait, limit)
        if made.timeout_seconds and spent > made.timeout_seconds:
            return tries, 504
        if wait > limit:
            status, again = 504, retries.after_loss(Loss.TRY_TIMEOUT, unsent=False)
        elif status == REFUSED:
            again = retries.after_loss(Loss.REFUSED, unsent=True)
            if not again or not retries.left:
                return tries, CUT_OFF
        elif case.is_grpc:
            again = retries.after_response(((b":status", b"200"), (b"grpc-status", b"%d" % status)))
        elif not status:
            status, again = 503, retries.after_loss(Loss.RESET, unsent=False)
            if not again:
                return tries, CUT_OFF
        else:
            again = retries.after_response(((b":status", b"%d" % status), *(why if status != 200 else ())))
        if not again or not retries.left:
            return tries, status
        spent += retries.next_wait(rng)


def decide(case: Case, table: str, rng: Random) -> Outcome:
    """What a waypoint decides."""
    fields = [(name.encode(), value.encode()) for name, value in case.headers.items()]
    request = Request(case.method.encode(), case.host.encode(), case.path.encode(), fields)
    request.scheme = case.headers.get("x-forwarded-proto", case.scheme).encode()
    if case.claims is not None:
        request.claims = dict(case.claims)
    routes = routes_of(case, table)
    router = Router(routes, case.port) if routes is not None else None
    made = (
        UNROUTED.of(request)
        if router is None or router.empty
        else plan(decide_about(router, request), request, NO_FACTS, case.port, rng)
    )
    if made.reply is not None:
        return answered(made, made.reply, case)
    tries, left = tried(made, case, rng)
    grpc, status = (14 if left == CUT_OFF else left, 200) if case.is_grpc else (-1, abs(left))
    sent = made.request or request
    got = as_text(made.edit(((b":status", b"%d" % status), (b"server", b"echo")), "10.0.0.1:8081"))
    return Outcome(
        version_of(made.destination, case) if left not in (504, CUT_OFF) else "",
        status,
        grpc,
        {"path": sent.path.decode(), "host": sent.authority.decode(), **as_text(tuple(sent.fields))},
        got,
        "upstream request timeout" if status == 504 else "",
        tries,
        made.delay_seconds,
        tuple(version_of(one, case) for one in made.mirrors),
        made.name,
    )


def connected(case: Case, table: str, rng: Random) -> Outcome:
    """Where a connection goes that speaks no HTTP; status 503: nowhere."""
    routes = routes_of(case, table)
    rule = routes.connection(IPv4Address("10.96.0.1"), case.port) if routes is not None else None
    if rule is None:
        return Outcome("any")
    (one,) = rng.choices(rule.forward.destinations, [each.weight for each in rule.forward.destinations])
    return Outcome("", 503) if one.refusal is not None else Outcome(version_of(one, case))


@pytest.mark.parametrize(("table", "case"), CASES)
def test_what_is_documented_is_decided(table: Table, case: Case) -> None:
    rng = Random(case.text)
    made = [
        (connected if case.tcp else decide)(case, table.name, rng)
        for _ in range(MANY if case.is_share else 1)
    ]
    for one in made:
        check(case, one)
    if case.is_share:
        check_shares(case, made)


@pytest.mark.parametrize("table", TABLES, ids=lambda one: one.name)
def test_nothing_that_is_documented_is_doubtful(table: Table) -> None:
    found = [one for one in translated(table.name).warnings if "waypoint" not in one]
    assert bool(found) is table.doubtful, found
