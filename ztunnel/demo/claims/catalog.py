"""All claims, in the order in which they are measured."""

from __future__ import annotations

from ztunnel.demo.claims import (
    addresses,
    change,
    crash,
    direct,
    faulty,
    forwarded,
    http_rules,
    identity,
    label,
    plaintext,
    ports,
    rotation,
    secrecy,
    speed,
)
from ztunnel.demo.claims.claim import Claim
from ztunnel.demo.claims.shop import Shop

CLAIMS: tuple[Claim[Shop], ...] = (
    secrecy.CLAIM,
    direct.CLAIM,
    addresses.CLAIM,
    identity.CLAIM,
    plaintext.CLAIM,
    change.CLAIM,
    crash.CLAIM,
    rotation.CLAIM,
    label.CLAIM,
    speed.CLAIM,
    faulty.CLAIM,
    ports.CLAIM,
    forwarded.CLAIM,
    http_rules.CLAIM,
)
