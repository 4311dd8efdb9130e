"""Which of the authorities that stand in Secrets is to sign.

One whose root nobody trusts yet would cut the mesh: nodes that have renewed their certificates, and those
that have not, would refuse each other. So a set is taken over only if its root is among those that are
trusted so far, or where the operator says so. Where nothing else is left to sign with, it is taken all the
same."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from cryptography import x509

from ztunnel.errors import Fault
from ztunnel.identity.authority import Authority

REPLACE_ROOT: Final = "ztunnel.io/replace-root"
"""Annotation of a Secret: `true` takes it over whatever its root is."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """What stands in a Secret: an authority, or what is wrong with it."""

    name: str
    authority: Authority | None = None
    faults: tuple[Fault, ...] = ()
    forced: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """What is to sign, None for nothing that could; and what the operator has to know."""

    authority: Authority | None
    faults: tuple[Fault, ...] = ()


def choose(
    plugged: Candidate | None,
    own: Candidate | None,
    current: Authority | None,
    trusted: Collection[x509.Certificate] | None,
) -> Choice:
    """Choose between the operator's, which comes first, and the self-signed one.

    Args:
        current: what signs now.
        trusted: the roots that the mesh trusts so far; None where that is not known, as for a new mesh.
    """
    if plugged is not None:
        if _may_sign(plugged, trusted):
            return Choice(plugged.authority)
        faults = plugged.faults or (_cuts(plugged),)
        if current is not None:
            return Choice(current, faults)
        if own is not None and trusted is not None and _may_sign(own, trusted):
            return Choice(own.authority, faults)
        return Choice(plugged.authority, faults)
    if own is not None:
        if _may_sign(own, trusted):
            return Choice(own.authority)
        return Choice(current or own.authority, own.faults or (_cuts(own),))
    return Choice(current)


def _may_sign(one: Candidate, trusted: Collection[x509.Certificate] | None) -> bool:
    if one.authority is None:
        return False
    return trusted is None or one.forced or one.authority.path[-1] in trusted


def _cuts(one: Candidate) -> Fault:
    text = (
        "its root is none that the mesh trusts so far: nodes that have renewed, and those that have not, "
        "would refuse each other. First add that root to root-cert.pem of the Secret that signs now, and "
        f"wait until all have renewed; or annotate this one with {REPLACE_ROOT}=true"
    )
    return Fault(one.name, 0, "", text)
