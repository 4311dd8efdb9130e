"""Whatever client, servers and time do, in any order: one answer, every byte accounted for, nothing left."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.waypoint.rig import Client, Rig, Server
from ztunnel.l7.reply import CONNECT_FAILED, NO_HEALTHY_UPSTREAM, NO_ROUTE, REMOTE_RESET, TERMINATED
from ztunnel.l7.request import Request
from ztunnel.l7.routing.plan import Plan
from ztunnel.l7.routing.retry import DEFAULT
from ztunnel.model.route_action import Destination
from ztunnel.model.route_policy import Retry, RetryOn
from ztunnel.model.service import ServiceName
from ztunnel.waypoint.exchange.exchange import Exchange

ALL = frozenset((RetryOn.SERVER_ERROR, RetryOn.RESET, RetryOn.CONNECT_FAILURE, RetryOn.REFUSED_STREAM))
COPY = Destination(ServiceName("shop", "copy"))


def plans() -> st.SearchStrategy[Plan]:
    def made(retry: Retry | None, times: tuple[float, float, float], mirrored: bool, reply: bool) -> Plan:
        plan = Plan("r", retry, NO_ROUTE if reply else None)
        plan.delay_seconds, plan.timeout_seconds, plan.try_timeout_seconds = times
        plan.mirrors = [COPY] if mirrored else []
        return plan

    retries = st.sampled_from([None, DEFAULT, Retry(1, ALL), Retry(3, ALL)])
    seconds = st.sampled_from([0.0, 0.0, 0.5, 2.0])
    return st.builds(
        made, retries, st.tuples(seconds, seconds, seconds), st.booleans(), st.integers(0, 9).map(bool)
    )


class Played:
    """One exchange, and what may happen to it."""

    def __init__(self, plan: Plan, waits: bool) -> None:
        self.rig = Rig()
        self.rig.plan, self.rig.waits = plan, waits
        self.client = Client()
        self.given = 0
        self.ended = False
        self.said: set[int] = set()
        self.exchange = Exchange(self.rig.way, self.client, Request(b"POST", b"a", b"/", []))
        self.exchange.start(False)

    def server(self) -> Server | None:
        """The one that is asked for the client, if it can still say anything."""
        mine = [each for each in self.rig.servers if each.exchange is self.exchange and not each.cancelled]
        one = mine[-1] if mine else None
        return one if one is not None and self.exchange._up is one else None

    def do(self, step: str) -> None:
        rig, exchange, server = self.rig, self.exchange, self.server()
        if step == "body" and not self.ended:
            self.given += 3
            exchange.body(memoryview(b"abc"))
        elif step == "end" and not self.ended:
            self.ended = True
            exchange.end(())
        elif step == "gone":
            self.ended = True
            exchange.gone()
        elif step == "time":
            rig.clock.sleep(0.3)
        elif step == "stand" and rig.waiting:
            rig.stand(rig.waiting.pop(0))
        elif step == "nobody" and rig.waiting:
            rig.waiting.pop(0).unreachable(CONNECT_FAILED, "no", unsent=True)
        elif step == "none" and rig.waiting:
            rig.waiting.pop(0).unreachable(NO_HEALTHY_UPSTREAM, "no")
        elif server is not None:
            self.answer(step, server)

    def answer(self, step: str, server: Server) -> None:
        exchange, begun = self.exchange, exchange_begun(self.exchange)
        if step in ("200", "503") and not begun:
            server.respond(status=step.encode())
        elif step == "200 end" and not begun:
            server.respond(end=True)
        elif step == "say" and begun:
            server.say(b"xyz")
        elif step == "whole" and begun:
            server.end()
        elif step == "reset":
            exchange.failed(REMOTE_RESET, unsent=not begun)
        elif step == "cut":
            exchange.failed(TERMINATED)


def exchange_begun(exchange: Exchange) -> bool:
    return exchange.answered_at > 0


STEPS = (
    "body", "end", "time", "stand", "nobody", "none", "200", "503", "200 end", "say", "whole", "reset", "cut",
    "gone",
)  # fmt: skip


@settings(deadline=None, max_examples=150)
@given(plans(), st.booleans(), st.lists(st.sampled_from(STEPS), max_size=25))
def test_one_answer_and_nothing_left(plan: Plan, waits: bool, steps: list[str]) -> None:
    played = Played(plan, waits)
    for step in steps:
        played.do(step)
    played.do("gone")
    exchange, client, rig = played.exchange, played.client, played.rig
    assert exchange.over
    assert [each for each in rig.ended_ if each is exchange] == [exchange]
    heads = [said for said in client.said if said[0] == "head"]
    assert len(heads) <= 1
    assert client.took == played.given
    assert rig.budget.retries == 0
    assert exchange.attempts.count <= 1 + (plan.retry.attempts if plan.retry is not None else 0)
    for one in rig.waiting:  # what is still being made is given back
        assert one is exchange or one.over or rig.shadows.live
    rig.waits = False
    while rig.waiting:
        late = rig.stand(rig.waiting.pop(0))
        assert late.exchange is not exchange or late.cancelled
    rig.clock.sleep(60)
    assert rig.shadows.live == 0
    assert len(rig.clock.timers) == 0
