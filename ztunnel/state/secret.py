"""A Secret with a certificate, its key or authorities, in the forms that Istio reads for `credentialName`
(istio/istio pilot/pkg/credentials/kube/secrets.go): `tls.crt`, `tls.key`, `ca.crt`, `ca.crl`, or `cert`,
`key`, `cacert`, `crl`. What else is in it is not looked at, and no message has a part of it."""

from __future__ import annotations

from base64 import b64decode
from dataclasses import dataclass, field
from typing import Final

from ztunnel.state.field import Field
from ztunnel.state.meta import Meta, read_meta

_CERTIFICATE: Final = ("cert", "tls.crt")
_KEY: Final = ("key", "tls.key")
_ROOTS: Final = ("cacert", "ca.crt")
_REVOKED: Final = ("crl", "ca.crl")
"""The first that is there counts, as Istio has it: certificate and key of one form."""


@dataclass(frozen=True, slots=True)
class Secret:
    """What of it is text in PEM; empty where there is none."""

    meta: Meta
    certificate: str = ""
    private_key: str = field(default="", repr=False)
    roots: str = ""
    revoked: str = ""


def read_secret(root: Field) -> Secret:
    """Core Secret."""
    meta = read_meta(root)
    if root.sub("data") is None and root.sub("stringData") is None:
        return Secret(meta)
    certificate, key = "", ""
    for names in zip(_CERTIFICATE, _KEY, strict=True):
        found = [_text(root, name) for name in names]
        if all(found):
            certificate, key = found
            break
    return Secret(meta, certificate, key, _first(root, _ROOTS), _first(root, _REVOKED))


def _first(root: Field, names: tuple[str, ...]) -> str:
    return next((found for name in names if (found := _text(root, name))), "")


def _text(root: Field, name: str) -> str:
    """Of `stringData`, which counts before `data`, as the API server has it."""
    plain, data = root.sub("stringData"), root.sub("data")
    if plain is not None and (below := plain.sub(name)) is not None:
        return below.as_text()
    below = data.sub(name) if data is not None else None
    if below is None:
        return ""
    try:
        return b64decode(below.as_text(), validate=True).decode("ascii")
    except ValueError:  # binascii.Error and UnicodeDecodeError are ones
        below.fault("is no text in base64: PEM is needed")
        return ""
