"""Gives a claim a valid certificate of any account, signed with the laboratory's own root key."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from ztunnel.demo.claims.shop import NAMESPACE, Shop
from ztunnel.demo.failure import LaboratoryFailed
from ztunnel.identity import csr
from ztunnel.identity.sign import CERT_FILE, open_authority
from ztunnel.model.identity import SpiffeId

CHAIN_FILE, KEY_FILE = "chain.pem", "key.pem"
_TTL_SECONDS = 600.0


def account(name: str) -> SpiffeId:
    """A service account of the shop."""
    return SpiffeId("cluster.local", NAMESPACE, name)


def certify(shop: Shop, directory: Path, identity: SpiffeId) -> None:
    """Write a new key, and the chain of a certificate over it: the leaf, then the root.

    Raises:
        LaboratoryFailed: the laboratory has no authority.
    """
    place = shop.laboratory.names.directory / "state" / "ca"
    if not (place / CERT_FILE).exists():
        raise LaboratoryFailed(f"no root certificate in {place}")
    now = datetime.now(UTC)
    request = csr.create(identity)
    chain = open_authority(place, now).sign(request.csr_pem, identity, _TTL_SECONDS, now)
    (directory / CHAIN_FILE).write_text("".join(chain))
    (directory / KEY_FILE).write_text(request.key_pem)
