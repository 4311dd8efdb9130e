"""What becomes of one request: decided once, when its head has come, and carried out over all its tries.

```
route ── preflight of another origin? ── answered
  │      a share is to fail: waits, is answered
  │      redirect, direct response ── answered
  └───── a destination by weight ── answered, where nothing can be sent there
                                 └─ edited, rewritten, mirrored, sent
```

Envoy's filters come in this order at Istio's waypoint (cors, fault, router).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from ztunnel.http1.head import Fields
from ztunnel.l7.chance import Rng, hits
from ztunnel.l7.reply import BAD_REWRITE, DIRECT, FAULT, NO_CLUSTER, NO_ROUTE, PREFLIGHT, Reply
from ztunnel.l7.request import Request
from ztunnel.l7.routing.comparison import joined
from ztunnel.l7.routing.cors import CorsAnswers
from ztunnel.l7.routing.edits import FieldEdits
from ztunnel.l7.routing.path_edit import edited
from ztunnel.l7.routing.retry import DEFAULT, DEFAULT_OF_CALLS
from ztunnel.l7.routing.route import Route, Target
from ztunnel.l7.substitution import Facts
from ztunnel.model.route_action import Destination, DirectResponse
from ztunnel.model.route_policy import Abort, Retry, RetryDefault

_GRPC_UNITS: Final = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}


def _nothing(name: bytes) -> bytes | None:
    return None


NO_FACTS: Final = Facts(_nothing, _nothing)


class Plan:
    """What was decided.

    Attributes:
        name: of the rule; `default` where there are no routes.
        delay_seconds: before anything else.
        reply: what it is answered with, then; None: it is sent on.
        destination: where it is sent; None: to what was called.
        request: what is sent; None: the request as it came.
        retry: what is tried again; None: nothing.
        timeout_seconds, try_timeout_seconds: for all tries, and for each; 0: none.
        mirrors: where copies are sent.
    """

    __slots__ = (
        "_cors", "_edits", "_facts", "_origin", "delay_seconds", "destination", "mirrors", "name",
        "reply", "request", "retry", "timeout_seconds", "try_timeout_seconds",
    )  # fmt: skip

    def __init__(self, name: str, retry: Retry | None = None, reply: Reply | None = None) -> None:
        self.name = name
        self.retry = retry
        self.reply = reply
        self.delay_seconds = 0.0
        self.destination: Destination | None = None
        self.request: Request | None = None
        self.timeout_seconds = 0.0
        self.try_timeout_seconds = 0.0
        self.mirrors: list[Destination] = []
        self._cors: CorsAnswers | None = None
        self._origin = b""
        self._edits: list[FieldEdits] = []
        self._facts = NO_FACTS

    def edit(self, fields: Fields, upstream: str = "") -> Fields:
        """A response's fields, of which `:status` is the first, as the client gets them; `upstream`: whose it
        is, empty for one of ours, which only redirects and direct responses have edits for."""
        if self._cors is None and not self._edits:
            return fields
        kept = list(fields[1:])
        if self._edits and (upstream or self.reply is not None):
            found = dict(fields)
            facts = self._facts._replace(response=found.get, upstream=upstream, status=int(fields[0][1]))
            for edits in self._edits:
                kept = edits.apply(kept, facts)
        if self._cors is not None:
            kept = self._cors.shared(self._origin, kept)
        return (fields[0], *kept)

    def share(self, cors: CorsAnswers, origin: bytes) -> None:
        """Responses are for a page of that origin as well."""
        self._cors, self._origin = cors, origin

    def edit_by(self, edits: FieldEdits, facts: Facts) -> None:
        """Responses are edited so."""
        if not edits.nothing:
            self._edits.append(edits)
            self._facts = facts


class Unrouted:
    """The plans for requests for which there are no routes.

    Attributes:
        said: what counts for the whole mesh (istio/istio#60683); None: nothing is said.
    """

    __slots__ = ("_call", "_plain", "said")

    def __init__(self, said: RetryDefault | None = None) -> None:
        self.said = said
        if said is None:
            self._plain, self._call = Plan("default", DEFAULT), Plan("default", DEFAULT_OF_CALLS)
            return
        self._plain, self._call = Plan("default", said.retry), Plan("default", said.retry)
        self._plain.try_timeout_seconds = self._call.try_timeout_seconds = said.try_seconds

    def of(self, request: Request) -> Plan:
        """That for a request."""
        kept = self._call if request.is_grpc else self._plain
        seconds = grpc_timeout(request, 0.0)
        if not seconds:
            return kept
        made = Plan("default", kept.retry)
        made.timeout_seconds, made.try_timeout_seconds = seconds, kept.try_timeout_seconds
        return made


UNROUTED: Final = Unrouted()
"""Where nothing is said for the mesh."""
NO_PLAN: Final = Plan("")
"""Nothing was decided yet."""


def plan(route: Route | None, request: Request, facts: Facts, port: int, rng: Rng) -> Plan:
    """The plan for a request, which stays as it came.

    Args:
        route: what was decided by; None: it is for no rule.
        request: see above.
        facts: what is known of it, but for its headers.
        port: of the service, at which it came.
        rng: for shares.
    """
    if route is None:
        return Plan("", reply=NO_ROUTE)
    rule, made = route.rule, Plan(route.name)
    cors = route.cors
    if cors is not None:
        answer = cors.preflight(request)
        if answer is not None:
            made.reply = replace(PREFLIGHT, fields=answer)
            return made
        origin = request.get(b"origin")
        if cors.allowed(origin):
            made.share(cors, origin)
    if rule.fault is not None:
        if rule.fault.delay is not None and hits(rule.fault.delay.per_million, rng):
            made.delay_seconds = rule.fault.delay.seconds
        if rule.fault.abort is not None and hits(rule.fault.abort.per_million, rng):
            made.reply = _aborted(rule.fault.abort)
            return made
    facts = facts._replace(request=_headers(request), route=route.name)
    made.edit_by(route.edits.response, facts)
    if route.location is not None:
        where = route.location.of(request.scheme, request.authority, request.path, port)
        made.reply = replace(DIRECT, status=route.location.status, fields=((b"location", where),))
    elif isinstance(rule.action, DirectResponse):
        made.reply = replace(DIRECT, status=rule.action.status, payload=rule.action.body)
    else:
        _send(made, route, request, facts, rng)
    return made


def _send(made: Plan, route: Route, request: Request, facts: Facts, rng: Rng) -> None:
    rule, target = route.rule, route.choose(rng)
    made.destination = target.destination
    refusal = target.destination.refusal
    if refusal is not None:
        made.reply = replace(NO_CLUSTER, status=refusal.status)
        return
    made.edit_by(target.edits.response, facts)
    if _changes(route, target):
        made.request = _changed(route, target, request, facts)
        if made.request is None:
            made.reply = BAD_REWRITE
            return
    made.retry = rule.retry
    made.timeout_seconds = grpc_timeout(request, rule.timeout_seconds)
    made.try_timeout_seconds = rule.try_timeout_seconds
    made.mirrors = [
        mirror.destination
        for mirror in rule.mirrors
        if mirror.destination.refusal is None and hits(mirror.per_million, rng)
    ]


def _changes(route: Route, target: Target) -> bool:
    """Whether a request is sent otherwise than it came."""
    plain = route.edits.request.nothing and target.edits.request.nothing
    return route.path is not None or bool(target.authority) or not plain


def _changed(route: Route, target: Target, request: Request, facts: Facts) -> Request | None:
    """The request as the route has it; None: its path cannot be."""
    made = request.copy()
    if route.path is not None and request.path != b"*":
        path = edited(route.path, request.path)
        if path is None:
            return None
        if path != request.path:
            made.fields.append((b"x-envoy-original-path", request.path))
            made.path = path
    for edits in (route.edits.request, target.edits.request):
        if not edits.nothing:
            made.fields = edits.apply(made.fields, facts)
    if target.authority:
        made.authority = target.authority
    return made


def _aborted(abort: Abort) -> Reply:
    """Envoy's fault filter: a status of gRPC goes with 200."""
    if abort.grpc_status is not None:
        return replace(FAULT, status=200, grpc_status=abort.grpc_status)
    return replace(FAULT, status=abort.status)


def _headers(request: Request) -> Callable[[bytes], bytes | None]:
    """Headers of the request, `:method` and the like among them, found out when one is asked for."""
    found: dict[bytes, bytes] = {}

    def get(name: bytes) -> bytes | None:
        if not found:
            found.update(joined(request))
            found.update(request.as_fields()[:4])
        return found.get(name)

    return get


def grpc_timeout(request: Request, most_seconds: float) -> float:
    """The time that a rule gives, or the client of gRPC where that is less (gRPC over HTTP/2, Timeout); 0:
    none."""
    if not request.is_grpc:
        return most_seconds
    said = request.get(b"grpc-timeout")
    digits, unit = said[:-1], said[-1:]
    if not digits.isdigit() or len(digits) > 8 or unit not in _GRPC_UNITS:
        return most_seconds
    seconds = int(digits) * _GRPC_UNITS[unit]
    return min(seconds, most_seconds) if most_seconds else seconds
