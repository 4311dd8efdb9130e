"""An authority that stands, for tests of what is signed by it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from ztunnel.identity.sign import open_authority
from ztunnel.identity.standing import StandingAuthority


def now() -> datetime:
    return datetime.now(UTC)


def standing(directory: Path) -> StandingAuthority:
    """One of our own, in a folder."""
    return StandingAuthority(open_authority(directory, now(), "cluster.local"))
