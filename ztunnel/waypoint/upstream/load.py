"""Loads what TLS towards servers takes: contexts, made of a DestinationRule's `tls` and the files that it
names, which are read again when they have changed, or what the control plane sends of a Secret, as it is at
the moment."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from functools import partial
from typing import Final

from ztunnel.errors import TlsFailed
from ztunnel.hbone.link import reason
from ztunnel.model.credential import Credential
from ztunnel.model.traffic import ClientTls, TlsMode

_MOST_KEPT: Final = 256
_Marks = tuple[object, ...]


def no_credential(_name: str) -> Credential | None:
    """Of a control plane that sends none."""
    return None


class Contexts:
    """Contexts of TLS by what they were made of; used by one thread at a time."""

    def __init__(self, credential: Callable[[str], Credential | None] = no_credential) -> None:
        """`credential` gives that of a name, as it is at the moment."""
        self._credential = credential
        self._kept: dict[tuple[ClientTls, str], tuple[_Marks, ssl.SSLContext]] = {}

    def of(self, tls: ClientTls, alpn: str) -> ssl.SSLContext:
        """The context for a policy, and a protocol to be agreed upon; empty: none.

        Raises:
            TlsFailed: a file is missing, or is not what it should be; or it is asked for what is not done.
        """
        try:
            paths = [path for path in (tls.roots, tls.revoked, tls.certificate, tls.key) if path]
            credential = self._credential(tls.credential) if tls.credential else None
            marks: _Marks = (credential, *map(_mark, paths))
            kept = self._kept.get((tls, alpn))
            if kept is not None and kept[0] == marks:
                return kept[1]
            made = _context(tls, credential, alpn)
        except (OSError, ssl.SSLError) as error:
            raise TlsFailed(f"DestinationRule tls: {error}") from error
        if len(self._kept) >= _MOST_KEPT:
            self._kept.clear()
        self._kept[tls, alpn] = marks, made
        return made


def _mark(path: str) -> tuple[str, int, int]:
    found = os.stat(path)
    return path, found.st_mtime_ns, found.st_size


def _context(tls: ClientTls, credential: Credential | None, alpn: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False  # by check_names, which knows of subjectAltNames
    if tls.skip_verify:
        context.verify_mode = ssl.CERT_NONE
    if tls.credential:
        _load(context, tls, credential)
    elif tls.skip_verify:
        pass
    elif tls.roots:
        context.load_verify_locations(tls.roots)
    else:
        context.load_default_certs()
    if tls.revoked:
        context.load_verify_locations(tls.revoked)
        context.verify_flags |= ssl.VerifyFlags.VERIFY_CRL_CHECK_LEAF
    if tls.mode is TlsMode.MUTUAL and not tls.credential:
        context.load_cert_chain(tls.certificate, tls.key)
    if alpn:
        context.set_alpn_protocols([alpn])
    return context


def _load(context: ssl.SSLContext, tls: ClientTls, credential: Credential | None) -> None:
    """What a Secret holds.

    Raises:
        TlsFailed: it has not come, lacks something, or cannot be read.
    """
    where = f"DestinationRule tls: credentialName {tls.credential!r}"
    if credential is None:
        raise TlsFailed(f"{where}: the control plane has sent no Secret of that name")
    if lacks := credential.lacks(tls):
        raise TlsFailed(f"{where}: {lacks}")
    try:
        if not tls.skip_verify:
            _from_memory(credential.roots, context.load_verify_locations)
            if credential.revoked:
                _from_memory(credential.revoked, context.load_verify_locations)
                context.verify_flags |= ssl.VerifyFlags.VERIFY_CRL_CHECK_LEAF
        if tls.mode is TlsMode.MUTUAL:
            pem = f"{credential.certificate}\n{credential.private_key}\n"
            # An empty password: OpenSSL would ask the terminal for that of a key that is encrypted.
            _from_memory(pem, partial(context.load_cert_chain, password=""))
    except ssl.SSLError as error:
        raise TlsFailed(f"{where}: Secret {credential.key}: {reason(error)}") from error


def _from_memory(pem: str, load: Callable[[str], None]) -> None:
    """OpenSSL reads files; this one is nowhere but in memory."""
    descriptor = os.memfd_create("credential", os.MFD_CLOEXEC)
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem.encode())
        file.flush()
        load(f"/proc/self/fd/{descriptor}")
