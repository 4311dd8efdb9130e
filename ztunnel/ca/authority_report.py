"""What is said of the certificate authority: which one signs, until when, and which set was refused."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime

from cryptography.hazmat.primitives import hashes

from ztunnel.control.source.report import Log
from ztunnel.errors import Fault
from ztunnel.identity.authority import Authority
from ztunnel.telemetry.figures import Figures
from ztunnel.telemetry.readiness import Readiness

_SOON_SECONDS = 30 * 86_400.0
"""Before the end of an authority from when on it is a warning."""


class AuthorityReport:
    """Remembers what was said, and says what differs."""

    def __init__(self, log: Log, readiness: Readiness, now: Callable[[], datetime]) -> None:
        self._log = log
        self._readiness = readiness
        self._now = now
        self._authority: Authority | None = None
        self._faults: tuple[Fault, ...] = ()

    def register(self, figures: Figures) -> None:
        """Bring the figures to the register, under istiod's names."""
        figures.gauge(
            "citadel_server_root_cert_expiry_timestamp",
            "When the first of the trusted roots to expire does, in Unix time",
            lambda: self._ends("roots"),
        )
        figures.gauge(
            "citadel_server_cert_chain_expiry_timestamp",
            "When what signs expires, be it the CA certificate or one that vouches for it, in Unix time",
            lambda: self._ends("path"),
        )
        figures.gauge(
            "ztunnel_authority_faults",
            "Faults in the files of the certificate authority, of which an earlier set is in force",
            lambda: len(self._faults),
        )

    def observe(self, authority: Authority | None, faults: Iterable[Fault]) -> None:
        """Say what differs from the last time."""
        faults = tuple(faults)
        if authority is not None and authority is not self._authority:
            self._log.info("certificate authority in force", **_described(authority))
            left_seconds = (authority.not_after - self._now()).total_seconds()
            if left_seconds < _SOON_SECONDS:
                self._log.warn(
                    "the certificate authority expires soon, and with it every certificate",
                    days=round(left_seconds / 86_400, 1),
                    not_after=authority.not_after.isoformat(),
                )
        for fault in faults:
            if fault not in self._faults:
                self._log.error(
                    "certificate authority refused, the one before stays in force", fault=str(fault)
                )
        if self._faults and not faults:
            self._log.info("the files of the certificate authority are good again")
        self._authority, self._faults = authority, faults
        self._readiness.detail("certificate authority", "\n".join(map(str, faults)))

    def _ends(self, which: str) -> list[tuple[tuple[str, ...], float]]:
        if self._authority is None:
            return []
        certificates = self._authority.roots if which == "roots" else self._authority.path
        return [((), min(one.not_valid_after_utc for one in certificates).timestamp())]


def _described(authority: Authority) -> dict[str, str | int]:
    """For a log line; a certificate is named by its subject and the head of its SHA-256."""
    roots = [one.fingerprint(hashes.SHA256()).hex()[:16] for one in authority.roots]
    return {
        "signer": authority.certificate.subject.rfc4514_string()[:200],
        "signer_sha256": authority.certificate.fingerprint(hashes.SHA256()).hex()[:16],
        "roots_sha256": ",".join(roots),
        "intermediates": len(authority.presented),
        "not_after": authority.not_after.isoformat(),
    }
