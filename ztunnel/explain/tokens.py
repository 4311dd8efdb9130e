"""Who a request speaks for at a waypoint, by the code that proves tokens (`l7/jwt/authentication.py`)."""

from __future__ import annotations

from typing import NamedTuple

from ztunnel.l7.jwt.authentication import Check, Outcome, refusal
from ztunnel.l7.jwt.authentications import Authentications
from ztunnel.l7.jwt.proofs import Proofs
from ztunnel.l7.jwt.token import Wrong
from ztunnel.l7.request import Request
from ztunnel.model.service import Service
from ztunnel.model.workload import Workload
from ztunnel.state.world import World


class TokenSaid(NamedTuple):
    """What becomes of a request by its token. `refused`: why it is refused, empty where it is not; `told`:
    who it speaks for, empty where it brings no token; `unknown`: RequestAuthentications that are not known
    here."""

    refused: str = ""
    told: str = ""
    unknown: tuple[str, ...] = ()


def judge_token(
    world: World, waypoint: Workload, service: Service | None, request: Request, now: float
) -> TokenSaid:
    """What becomes of it, and the request, edited, with the claims of its token; `now` are seconds since the
    epoch."""
    names = _names(world, waypoint, service)
    unknown = tuple(name for name in names if name not in world.jwt_policies)
    if unknown:
        return TokenSaid(unknown=unknown)
    rules, proofs = Authentications().of(world.jwt_policies, names), Proofs()
    found = rules.judge(request, proofs, now)
    while isinstance(found, Check):
        proofs.check(*found)
        found = rules.judge(request, proofs, now)
    if found.wrong is not None:
        return TokenSaid(refused=_refused(request, found, found.wrong))
    rules.edit(request, found)
    request.claims = found.claims
    return TokenSaid(told=_told(found))


def _names(world: World, waypoint: Workload, service: Service | None) -> tuple[str, ...]:
    keys = [*waypoint.services, *([service.key] if service is not None else [])]
    services = (world.service(key) for key in keys)
    return tuple(dict.fromkeys(each for one in services if one is not None for each in one.jwt_policies))


def _refused(request: Request, found: Outcome, wrong: Wrong) -> str:
    reply = refusal(request, wrong)
    rule = found.rule
    by = f" by {rule.policy}" if rule is not None and rule.policy else ""
    keys = ""
    if rule is not None and not rule.rule.keys:
        keys = f": the keys of {rule.rule.issuer or rule.rule.keys_url} are fetched, and not known here"
    return f"answered {reply.status}{by}: {wrong.value}{keys}"


def _told(found: Outcome) -> str:
    if found.rule is None or found.token is None:
        return ""
    claims = found.claims
    return f"by its token it speaks for {claims.get('iss', '')}/{claims.get('sub', '')} ({found.rule.policy})"
