"""Who calls the control plane, as far as was proved, and why somebody is refused."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from ztunnel.errors import PeerError
from ztunnel.model.identity import SpiffeId, parse_spiffe_id
from ztunnel.rpc.status import Code


class Proof(StrEnum):
    """What a caller has proved itself with."""

    CERTIFICATE = "certificate"
    TOKEN = "token"
    """A service account's, which the Kubernetes API vouches for."""
    STATIC_TOKEN = "static token"
    """One of the operator's file."""


class Reason(StrEnum):
    """Why a call is refused: a label of metrics and a field of the log."""

    NO_CREDENTIALS = "no_credentials"
    BAD_CERTIFICATE = "bad_certificate"
    BAD_TOKEN = "bad_token"
    EXPIRED_TOKEN = "expired_token"
    WRONG_AUDIENCE = "wrong_audience"
    NO_ACCOUNT = "no_account"
    API_UNAVAILABLE = "api_unavailable"
    TOO_MANY = "too_many"
    WRONG_ACCOUNT = "wrong_account"
    UNKNOWN_POD = "unknown_pod"
    OTHER_NODE = "other_node"
    OTHER_TRUST_DOMAIN = "other_trust_domain"
    BAD_REQUEST = "bad_request"
    SIGNING_FAILED = "signing_failed"


UNAUTHENTICATED = frozenset(
    (
        Reason.NO_CREDENTIALS,
        Reason.BAD_CERTIFICATE,
        Reason.BAD_TOKEN,
        Reason.EXPIRED_TOKEN,
        Reason.WRONG_AUDIENCE,
        Reason.NO_ACCOUNT,
    )
)
"""Those that say: nobody knows who you are. Another token may help."""


def code_of(reason: Reason) -> Code:
    """The status of a refusal."""
    if reason in UNAUTHENTICATED:
        return Code.UNAUTHENTICATED
    return _CODES.get(reason, Code.PERMISSION_DENIED)


_CODES: Final = {
    Reason.API_UNAVAILABLE: Code.UNAVAILABLE,
    Reason.SIGNING_FAILED: Code.UNAVAILABLE,
    Reason.TOO_MANY: Code.RESOURCE_EXHAUSTED,
    Reason.BAD_REQUEST: Code.INVALID_ARGUMENT,
}


class Refused(Exception):
    """A call is refused. The message is for the caller and the log: plain words, never a part of a token."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls.

    Attributes:
        identity: its own.
        pod, pod_uid, node: as the token says it, empty where it does not.
    """

    identity: SpiffeId
    proof: Proof
    pod: str = ""
    pod_uid: str = ""
    node: str = ""

    @property
    def account(self) -> str:
        """`namespace/name` of its service account."""
        return f"{self.identity.namespace}/{self.identity.service_account}"

    def __str__(self) -> str:
        where = (
            f"pod {self.identity.namespace}/{self.pod}"
            if self.pod
            else f"node {self.node}"
            if self.node
            else ""
        )
        return f"{self.account}{f' ({where})' if where else ''}"


def identity_of(trust_domain: str, namespace: str, account: str) -> SpiffeId:
    """The identity of a service account.

    Raises:
        Refused: names that none has.
    """
    try:
        return parse_spiffe_id(str(SpiffeId(trust_domain, namespace, account)))
    except PeerError as error:
        raise Refused(Reason.NO_ACCOUNT, f"not a service account: {error}") from error
