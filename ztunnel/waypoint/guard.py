"""What policies say about one tunnel: about each request through it, or about itself where it is no HTTP.

They are asked by the world of the moment. Who calls is who has proved it by the tunnel's certificate: no
header says anything about that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ztunnel.errors import Denied
from ztunnel.l7.policy.attributes import Attributes
from ztunnel.l7.policy.authorization import Authorization, Authorizations
from ztunnel.l7.policy.rule import Decision
from ztunnel.l7.reply import NO_FLAG, Reply
from ztunnel.l7.request import Request
from ztunnel.model.connection import Connection
from ztunnel.model.service import AppProtocol
from ztunnel.model.workload import Workload
from ztunnel.state.lookup import guards_of
from ztunnel.state.world import World
from ztunnel.waypoint.chain import Chain

NO_POLICY: Final = "none allowed"
"""Stands for a policy where none allowed."""

DENIED: Final = "RBAC: access denied"
_ASKED_IN_VAIN: Final = "UAEX"
"""Envoy's flag of what an external authorizer did not let through."""

Current = Callable[[], tuple[World, Workload | None]]
"""The world of the moment, and the waypoint in it."""


class Guard:
    """The policies about one tunnel.

    Args:
        authorizations: those of all tunnels.
        current: see there.
        chain: what is called.
        connection: who calls.
        hops: proxies before this one whose X-Forwarded-For is believed.
    """

    __slots__ = ("_authorizations", "_chain", "_connection", "_current", "_hops", "_last")

    def __init__(
        self,
        authorizations: Authorizations,
        current: Current,
        chain: Chain,
        connection: Connection,
        hops: int = 0,
    ) -> None:
        self._authorizations = authorizations
        self._current = current
        self._chain = chain
        self._connection = connection
        self._hops = hops
        self._last: Authorization | None = None

    def judge(self, request: Request) -> Decision:
        """Whether it may pass."""
        self._last = authorization = self._find()
        attributes = Attributes(request, self._connection.source.ip, self._hops)
        return authorization.judge(self._connection).decide(attributes)

    def judge_connection(self) -> Decision:
        """Whether the tunnel may be passed on, which is no HTTP."""
        self._last = authorization = self._find()
        sni = "" if self._chain.protocol is AppProtocol.TCP else None
        return authorization.judge(self._connection, http=False, sni=sni).decide(None)

    def changed(self) -> bool:
        """Whether other policies count than when it was asked last."""
        return self._last is not None and self._find() is not self._last

    def _find(self) -> Authorization:
        world, here = self._current()
        names = guards_of(world, here, self._chain.service) if here is not None else ()
        return self._authorizations.of(world.http_policies, names)


def refusal(decision: Decision) -> Reply:
    """The reply to a request that may not pass."""
    in_vain = bool(decision.reason) and decision.rule >= 0
    return Reply(403, _ASKED_IN_VAIN if in_vain else NO_FLAG, decision.details, DENIED)


def denied(decision: Decision, why: str = "policy rejection") -> Denied:
    """The end of a connection that may not pass; `why` it is judged."""
    if decision.reason:
        text = decision.reason
    elif decision.policy:
        text = f"explicitly denied by: {decision.policy}"
    else:
        text = "allow policies exist, but none allowed"
    policy = decision.policy or NO_POLICY
    return Denied(f"connection closed due to {why}: {text}", policy, decision.details)
