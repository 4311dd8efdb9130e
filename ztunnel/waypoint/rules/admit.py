"""The requests through one tunnel until they may go on, and whether they still may.

```
token good? ── policies ──┬─ refused ──> answered
                          ├─ admitted ──> goes on
                          └─ CUSTOM: an authorizer is asked ──> refused, or policies once more ──> ...
```

Whoever waits for an authorizer costs an object, no task; who leaves is forgotten. What goes on is judged
again when policies change, without asking anybody again (as Envoy: an answer holds for the request that it
was given for).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Protocol

from ztunnel.l7.extauthz.outcome import DENIED, Answer, Denial, Failed, Permit, permitted
from ztunnel.l7.extauthz.question import FAILURE_ALLOWED, Party, Question
from ztunnel.l7.policy.rule import Decision
from ztunnel.l7.reply import Reply
from ztunnel.l7.request import Request
from ztunnel.model.address import OriginalDestination
from ztunnel.model.connection import Connection
from ztunnel.model.provider import Speech
from ztunnel.model.route_action import Destination
from ztunnel.model.service import ServiceName
from ztunnel.model.workload import Workload
from ztunnel.state.hold import Hold
from ztunnel.state.lookup import Authorizer, authorizer_of
from ztunnel.waypoint.exchange.exchange import Exchange
from ztunnel.waypoint.rules.aim import Terms
from ztunnel.waypoint.rules.authenticate import Authenticator, Find, Source
from ztunnel.waypoint.rules.checking import Asked, Check, Checks
from ztunnel.waypoint.rules.guard import Guard, refusal
from ztunnel.waypoint.upstream.spot import Cancellable

_FLAG = "UAEX"
"""Envoy's flag of what an external authorizer did not let through."""


class Listener(Protocol):
    """Whoever hears what becomes of requests."""

    def admitted(self, exchange: Exchange, decision: Decision) -> None:
        """It may go on."""

    def denies(self, policy: str) -> None:
        """Something was refused, by that policy."""


class Ends:
    """Both ends of the tunnel, as an authorizer is told of them; `version` of HTTP is spoken in it."""

    __slots__ = ("_sought", "destination", "source", "terms", "version")

    def __init__(self, calls: Connection, here: Workload | None) -> None:
        """`here` is the waypoint, by whose certificate it is known."""
        self.source = Party(calls.source, str(calls.identity or ""))
        self.destination = Party(calls.destination, str(here.identity) if here is not None else "")
        called = OriginalDestination(calls.destination.ip, calls.destination.port)
        self.terms = Terms(called, calls.source.ip)
        self.version = 1
        self._sought = Destination(ServiceName("", ""))

    def sought(self, authorizer: Authorizer) -> Destination:
        """The authorizer as a destination: the very same one as before where it is, by which what was found
        out of it is known (`aim`)."""
        service, port = authorizer.service.key, authorizer.provider.service.port
        if (self._sought.service, self._sought.port) != (service, port):
            self._sought = Destination(service, port)
        return self._sought


class Admission:
    """That of one tunnel.

    Args:
        authenticator: finds out who requests speak for.
        checks: questions to authorizers.
        guard: the policies.
        hold: the world of the moment.
        find: the rules about tokens of the moment.
        source: whose requests they are.
        listener: hears of what is decided.
    """

    def __init__(
        self,
        asking: tuple[Authenticator, Checks],
        policies: tuple[Guard, Hold, Find],
        ends: Ends,
        source: Source,
        listener: Listener,
    ) -> None:
        self._authenticator, self._checks = asking
        self._guard, self._hold, self._find = policies
        self._ends = ends
        self._source = source
        self._listener = listener
        self._last_rules = self._find()
        self._waiting: dict[Exchange, Check] = {}
        self._shown: dict[Exchange, Check] = {}
        self.exchanges: set[Exchange] = set()

    def begin(self, exchange: Exchange) -> None:
        """Say what becomes of it, if its token is good and policies let it through."""
        self._authenticator.admit(exchange, self._find, self._source, self._authorize)

    def ended(self, exchange: Exchange) -> None:
        """It is over."""
        self.exchanges.discard(exchange)
        check = self._waiting.pop(exchange, None)
        if check is not None:
            check.cancel()
        shown = self._shown.pop(exchange, None)
        if shown is not None:
            shown.release()

    def rejudge(self, changed: bool) -> None:
        """End what may not go on by the policies of now, which have `changed` or not."""
        rules = self._find()
        others, self._last_rules = rules is not self._last_rules, rules
        if others:
            for exchange in tuple(self.exchanges):
                again = self._authenticator.judge_again
                again(exchange, self._find, self._source, self._judge_again)
        elif changed:
            for exchange in tuple(self.exchanges):
                self._judge_again(exchange)

    def expire(self) -> None:
        """End what goes on by a token that has expired."""
        for exchange in tuple(self.exchanges):
            self._authenticator.expire(exchange)

    def _judge_again(self, exchange: Exchange) -> None:
        decision = self._guard.judge(self._hold.world, exchange.admitted, permitted=True)
        if not decision.allowed:
            self._listener.denies(decision.policy)
            exchange.failure = decision.reason or "a change of policy"
            exchange.revoke(refusal(decision))

    def _authorize(self, exchange: Exchange) -> None:
        """It is known who the request speaks for."""
        decision = self._guard.judge(self._hold.world, exchange.admitted)
        if decision.provider:
            self._ask(exchange, decision)
        else:
            self._decided(exchange, decision)

    def _decided(self, exchange: Exchange, decision: Decision) -> None:
        if not decision.allowed:
            self._listener.denies(decision.policy)
            exchange.failure = decision.reason
            exchange.reply(refusal(decision))
            return
        self.exchanges.add(exchange)
        self._listener.admitted(exchange, decision)

    # An authorizer.

    def _ask(self, exchange: Exchange, decision: Decision) -> None:
        found = authorizer_of(self._hold.world, decision.provider)
        if isinstance(found, str):
            self._checks.count(decision.provider, "unknown")
            self._decided(exchange, replace(decision, provider="", reason=found))
            return
        ends = self._ends
        began_ns = self._checks.wall_ns()
        question = Question(ends.source, ends.destination, exchange.admitted, ends.version, began_ns)
        asked = Asked(found, ends.terms, ends.sought(found), question)
        then = partial(self._answered, exchange, decision, found)
        check = self._waiting[exchange] = Check(self._checks, asked, then)
        if found.provider.body is not None:
            self._shown[exchange] = check
        check.look_at(exchange)

    def _answered(
        self, exchange: Exchange, decision: Decision, authorizer: Authorizer, answer: Answer | Reply
    ) -> None:
        self._waiting.pop(exchange, None)
        if exchange.over:
            return
        if isinstance(answer, Reply):
            exchange.reply(answer)
        elif isinstance(answer, Permit):
            self._checks.count(authorizer.name, "allowed")
            exchange.changes = list(answer.response)
            self._go_on(exchange, authorizer, permitted(exchange.admitted, answer))
        elif isinstance(answer, Failed) and authorizer.provider.fail_open:
            self._checks.count(authorizer.name, "failure_mode_allowed")
            request = exchange.admitted.copy()
            request.fields.append((FAILURE_ALLOWED, b"true"))
            self._go_on(exchange, authorizer, request)
        else:
            failed = isinstance(answer, Failed)
            self._checks.count(authorizer.name, "error" if failed else "denied")
            self._listener.denies(decision.policy)
            exchange.failure = answer.reason if isinstance(answer, Failed) else ""
            exchange.reply(reply_of(answer, authorizer))

    def ask_about_connection(
        self, decision: Decision, begin: Callable[[Cancellable], None], then: Callable[[Decision], None]
    ) -> None:
        """Ask whether a connection may be passed on that is no HTTP: `then` hears what is decided. `begin` is
        given what can be cancelled, before anything is asked."""
        found = authorizer_of(self._hold.world, decision.provider)
        if not isinstance(found, str) and found.provider.speech is Speech.HTTP:
            found = f"the provider {found.name!r} asks over HTTP, and this is a connection without requests"
        if isinstance(found, str):
            self._checks.count(decision.provider, "unknown")
            then(replace(decision, provider="", reason=found))
            return
        ends = self._ends
        question = Question(ends.source, ends.destination, time_ns=self._checks.wall_ns())
        answered = partial(self._connection_answered, decision, found, then)
        check = Check(self._checks, Asked(found, ends.terms, ends.sought(found), question), answered)
        begin(check)
        check.ask()

    def _connection_answered(
        self,
        decision: Decision,
        authorizer: Authorizer,
        then: Callable[[Decision], None],
        answer: Answer | Reply,
    ) -> None:
        failed = isinstance(answer, Failed)
        if isinstance(answer, Permit) or (failed and authorizer.provider.fail_open):
            self._checks.count(authorizer.name, "failure_mode_allowed" if failed else "allowed")
            then(self._guard.judge_connection(self._hold.world, permitted=True))
            return
        self._checks.count(authorizer.name, "error" if failed else "denied")
        reason = answer.reason if isinstance(answer, Failed) else f"{authorizer.name} denies it"
        details = "ext_authz_error" if failed else "ext_authz_denied"
        then(replace(decision, provider="", reason=reason, details=details))

    def _go_on(self, exchange: Exchange, authorizer: Authorizer, request: Request) -> None:
        """Whoever was asked lets it through, as that request: the other policies decide about it."""
        if request is not exchange.admitted:
            if not authorizer.provider.clear_route_cache:
                exchange.matched = exchange.admitted
            exchange.admitted = exchange.request = request
        self._decided(exchange, self._guard.judge(self._hold.world, request, permitted=True))


def reply_of(answer: Denial | Failed, authorizer: Authorizer) -> Reply:
    """How a request is answered that an authorizer does not let through, or says nothing about."""
    if isinstance(answer, Denial):
        return _reply(answer, "ext_authz_denied", DENIED)
    status = authorizer.provider.error_status
    return _reply(answer.instead or Denial(status), "ext_authz_error", status)


def _reply(denial: Denial, details: str, otherwise: int) -> Reply:
    status = denial.status or otherwise
    return Reply(status, _FLAG, details, fields=denial.fields, payload=denial.body)
