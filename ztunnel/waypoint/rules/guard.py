"""What policies say about one tunnel: about each request through it, or about itself where it is no HTTP.

They are asked by the world of the moment. Who calls is who has proved it by the tunnel's certificate: no
header says anything about that.
"""

from __future__ import annotations

from typing import Final

from ztunnel.errors import Denied
from ztunnel.l7.policy.attributes import Attributes
from ztunnel.l7.policy.authorization import Authorization, Authorizations, Judge
from ztunnel.l7.policy.rule import Decision
from ztunnel.l7.reply import NO_FLAG, Reply
from ztunnel.l7.request import Request
from ztunnel.model.connection import Connection
from ztunnel.model.service import AppProtocol
from ztunnel.state.lookup import guards_of
from ztunnel.state.world import World
from ztunnel.waypoint.chain import Chain

NO_POLICY: Final = "none allowed"
"""Stands for a policy where none allowed."""

DENIED: Final = "RBAC: access denied"
_ASKED_IN_VAIN: Final = "UAEX"
"""Envoy's flag of what an external authorizer did not let through."""


class Guard:
    """The policies about one tunnel: found once for each world, and what they make of its connection once for
    as long as they are the same.

    Args:
        authorizations: those of all tunnels.
        uid: the waypoint's own.
        chain: what is called.
        connection: who calls.
        hops: proxies before this one whose X-Forwarded-For is believed.
    """

    __slots__ = (
        "_asked",
        "_authorizations",
        "_chain",
        "_connection",
        "_found",
        "_hops",
        "_judge",
        "_mark",
        "_uid",
    )

    def __init__(
        self,
        authorizations: Authorizations,
        uid: str,
        chain: Chain,
        connection: Connection,
        hops: int = 0,
    ) -> None:
        self._authorizations = authorizations
        self._uid = uid
        self._chain = chain
        self._connection = connection
        self._hops = hops
        self._mark: object = None
        self._found: Authorization | None = None
        self._asked: Authorization | None = None
        self._judge: Judge | None = None

    def judge(self, world: World, request: Request, *, permitted: bool = False) -> Decision:
        """Whether it may pass, or whose word that waits for; `permitted`: that was given."""
        authorization, judge = self._find(world), self._judge
        if judge is None or authorization is not self._asked:
            self._asked = authorization
            judge = self._judge = authorization.judge(self._connection)
        attributes = Attributes(request, self._connection.source.ip, self._hops)
        return judge.decide(attributes, permitted=permitted)

    def judge_connection(self, world: World, *, permitted: bool = False) -> Decision:
        """Whether the tunnel may be forwarded, which is no HTTP, or whose word that waits for."""
        authorization = self._asked = self._find(world)
        self._judge = None
        sni = "" if self._chain.protocol is AppProtocol.TCP else None
        judge = authorization.judge(self._connection, http=False, sni=sni)
        return judge.decide(None, permitted=permitted)

    def changed(self, world: World) -> bool:
        """Whether other policies count than when it was asked last."""
        return self._asked is not None and self._find(world) is not self._asked

    def _find(self, world: World) -> Authorization:
        found = self._found
        if found is None or world.mark is not self._mark:
            here = world.workload(self._uid)
            names = guards_of(world, here, self._chain.service) if here is not None else ()
            found = self._found = self._authorizations.of(world.http_policies, names)
            self._mark = world.mark
        return found


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
