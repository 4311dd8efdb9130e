"""What a Secret gives to TLS with servers, for the waypoints of its namespace that a `credentialName` of a
DestinationRule concerns."""

from __future__ import annotations

from dataclasses import dataclass, field

from ztunnel.model.traffic import ClientTls, TlsMode


@dataclass(frozen=True, slots=True)
class Credential:
    """That of one name, as PEM; texts are empty where there are none.

    Attributes:
        name: as `credentialName` has it.
        namespace: that of the waypoints, and of the Secret.
        certificate: a certificate chain, our own first; and `private_key`, its key: both only where a rule
            asks for MUTUAL.
        roots: certificates of the authorities that prove servers.
        revoked: certificate revocation lists.
        problem: why there is less than there should be; for whoever is not served for it.
    """

    name: str
    namespace: str
    certificate: str = ""
    private_key: str = field(default="", repr=False)
    roots: str = ""
    revoked: str = ""
    problem: str = ""

    @property
    def key(self) -> str:
        """`namespace/name`."""
        return f"{self.namespace}/{self.name}"

    def lacks(self, tls: ClientTls) -> str:
        """Why TLS cannot be originated by it as a rule asks for; empty: it can."""
        without_key = tls.mode is TlsMode.MUTUAL and not (self.certificate and self.private_key)
        without_roots = not tls.skip_verify and not self.roots
        if not without_key and not without_roots:
            return ""
        if self.problem:
            return self.problem
        if without_key:
            return f"Secret {self.key} has no tls.crt and tls.key (or cert and key)"
        where = f"neither Secret {self.key} nor {self.key}-cacert"
        return f"{where} has a ca.crt (or cacert), by which servers are proved"
