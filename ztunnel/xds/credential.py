"""Credentials of waypoints as messages of ztunnel.http, both ways."""

from __future__ import annotations

from typing import Final

from ztunnel.model.credential import Credential
from ztunnel.xds.pb import credential_pb2 as pb
from ztunnel.xds.record import PLAIN, Record

_CREDENTIAL: Final = Record(
    Credential,
    pb.Credential,
    name=PLAIN,
    namespace=PLAIN,
    certificate=PLAIN,
    private_key=PLAIN,
    roots=PLAIN,
    revoked=PLAIN,
    problem=PLAIN,
)


def render_credential(credential: Credential) -> pb.Credential:
    """As it is sent."""
    made: pb.Credential = _CREDENTIAL.render(credential)
    return made


def parse_credential(untrusted: pb.Credential) -> Credential:
    """As it was sent."""
    return _CREDENTIAL.parse(untrusted)
