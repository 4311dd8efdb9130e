"""Loads what TLS towards servers takes: contexts, made of a DestinationRule's `tls` and the files that it
names, which are read again when they have changed."""

from __future__ import annotations

import os
import ssl
from typing import Final

from ztunnel.errors import TlsFailed
from ztunnel.model.traffic import ClientTls, TlsMode

_MOST_KEPT: Final = 256
_Marks = tuple[tuple[str, int, int], ...]


class Contexts:
    """Contexts of TLS by what they were made of; used by one thread at a time."""

    def __init__(self) -> None:
        self._kept: dict[tuple[ClientTls, str], tuple[_Marks, ssl.SSLContext]] = {}

    def of(self, tls: ClientTls, alpn: str) -> ssl.SSLContext:
        """The context for a policy, and a protocol to be agreed upon; empty: none.

        Raises:
            TlsFailed: a file is missing, or is not what it should be; or it is asked for what is not done.
        """
        try:
            marks = tuple(_mark(path) for path in (tls.roots, tls.revoked, tls.certificate, tls.key) if path)
            kept = self._kept.get((tls, alpn))
            if kept is not None and kept[0] == marks:
                return kept[1]
            made = _context(tls, alpn)
        except (OSError, ssl.SSLError) as error:
            raise TlsFailed(f"DestinationRule tls: {error}") from error
        if len(self._kept) >= _MOST_KEPT:
            self._kept.clear()
        self._kept[tls, alpn] = marks, made
        return made


def _mark(path: str) -> tuple[str, int, int]:
    found = os.stat(path)
    return path, found.st_mtime_ns, found.st_size


def _context(tls: ClientTls, alpn: str) -> ssl.SSLContext:
    if tls.credential:
        raise TlsFailed(
            f"DestinationRule tls: credentialName {tls.credential!r}: waypoints read no Secrets; mount it, "
            "and give the paths as caCertificates, clientCertificate and privateKey"
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False  # by check_names, which knows of subjectAltNames
    if tls.skip_verify:
        context.verify_mode = ssl.CERT_NONE
    elif tls.roots:
        context.load_verify_locations(tls.roots)
    else:
        context.load_default_certs()
    if tls.revoked:
        context.load_verify_locations(tls.revoked)
        context.verify_flags |= ssl.VerifyFlags.VERIFY_CRL_CHECK_LEAF
    if tls.mode is TlsMode.MUTUAL:
        context.load_cert_chain(tls.certificate, tls.key)
    if alpn:
        context.set_alpn_protocols([alpn])
    return context
