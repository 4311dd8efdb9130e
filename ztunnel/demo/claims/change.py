"""A change of policy ends the open connections that it now refuses, and only those."""

from __future__ import annotations

from ztunnel.demo.claims.claim import Claim, Findings
from ztunnel.demo.claims.direct import DENY, open_direct
from ztunnel.demo.claims.enforce import enforced
from ztunnel.demo.claims.shop import Shop
from ztunnel.demo.failure import LaboratoryFailed

_SECONDS = 1.0
_LONGEST_SECONDS = 3.0
_REFUSED = {"direct": "orders-1", "tunnelled": "orders-2"}


def _measure(shop: Shop, findings: Findings) -> None:
    others = (("frontend-1", "orders-1"), ("frontend-1", "orders-2"), ("load", "frontend-1"))
    for name, pod in _REFUSED.items():
        _open(shop, "load", name, pod)
    for client, pod in others:
        _open(shop, client, f"to {pod}", pod)
    try:
        with enforced(shop, DENY) as begun:
            ended = shop.caller("load").ends(list(_REFUSED), _LONGEST_SECONDS)
            for name in _REFUSED:
                error, at = ended.get(name, ("", begun + _LONGEST_SECONDS))
                text = f"{name}: {error or 'still open'} {(at - begun) * 1000:.0f} ms after the new policy"
                findings.note(text, name in ended and at - begun < _SECONDS)
            alive = sum(shop.caller(client).lives(f"to {pod}") for client, pod in others)
            findings.note(f"{alive} of {len(others)} others live on", alive == len(others))
    finally:
        for client in {"load", *(client for client, _ in others)}:
            shop.caller(client).close()


def _open(shop: Shop, client: str, name: str, pod: str) -> None:
    open_direct(shop, client, name, shop.pod(pod))
    if not shop.caller(client).lives(name):
        raise LaboratoryFailed(f"{client} cannot talk to {pod}")


CLAIM = Claim(
    6,
    "A change of policy ends what it refuses within a second, and nothing else",
    "open connections of two accounts, direct and tunnelled, when a DENY policy for one of them is written",
    _measure,
)
