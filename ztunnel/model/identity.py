"""SPIFFE identities of the form that Istio issues: `spiffe://<trust domain>/ns/<namespace>/sa/<account>`.

Follows the SPIFFE ID specification, section 2: a trust domain of `[a-z0-9.-_]`, path segments of
`[a-zA-Z0-9.-_]`, no empty and no dot segments, at most 255 and 2048 bytes, no percent-encoding, port,
userinfo, query or fragment.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from ztunnel.errors import PeerError

_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]{1,255}")
_SEGMENT = re.compile(r"[a-zA-Z0-9._-]{1,253}")
_MAX_BYTES = 2048


@dataclass(frozen=True, slots=True, order=True)
class SpiffeId:
    """Who a workload is. Whose each connection is, is looked up by it, so its hash is made once."""

    trust_domain: str
    namespace: str
    service_account: str
    _hash: int = field(default=0, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hash", hash((self.trust_domain, self.namespace, self.service_account)))

    def __hash__(self) -> int:
        return self._hash

    def __str__(self) -> str:
        return f"spiffe://{self.trust_domain}/ns/{self.namespace}/sa/{self.service_account}"

    @property
    def principal(self) -> str:
        """The identity as AuthorizationPolicy writes it: without the scheme."""
        return f"{self.trust_domain}/ns/{self.namespace}/sa/{self.service_account}"


def parse_spiffe_id(untrusted: str) -> SpiffeId:
    """Parse a SPIFFE ID of Istio's form, exactly.

    Raises:
        PeerError: anything else, names included that only a lenient reader would accept.
    """
    if len(untrusted) > _MAX_BYTES or not untrusted.startswith("spiffe://"):
        raise PeerError(f"not a SPIFFE ID: {untrusted[:80]!r}")
    parts = untrusted.removeprefix("spiffe://").split("/")
    if len(parts) != 5 or parts[1] != "ns" or parts[3] != "sa":
        raise PeerError(
            f"not of the form spiffe://<trust domain>/ns/<namespace>/sa/<account>: {untrusted[:80]!r}"
        )
    trust_domain, _, namespace, _, account = parts
    if not _TRUST_DOMAIN.fullmatch(trust_domain):
        raise PeerError(f"not a trust domain: {trust_domain[:80]!r}")
    for segment in (namespace, account):
        if not _SEGMENT.fullmatch(segment) or segment in (".", ".."):
            raise PeerError(f"not a path segment of a SPIFFE ID: {segment[:80]!r}")
    return SpiffeId(trust_domain, namespace, account)
