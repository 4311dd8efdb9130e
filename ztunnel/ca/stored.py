"""The Secrets that an authority is kept in, in the namespace of the control plane.

| Secret | made by | holds |
|---|---|---|
| `cacerts` | the operator | a plug-in CA; where it is there it signs |
| `ztunnel-ca-secret` | the first control plane without `cacerts` | a self-signed root, as `istio-ca-secret` |

Both have the keys of `identity/plugged_in.py`."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ztunnel.errors import ConfigError, Fault
from ztunnel.identity import template
from ztunnel.identity.authority import Authority, read_authority
from ztunnel.identity.plugged_in import CA_CERT, CA_KEY, CERT_CHAIN, NAMES, ROOT_CERT, assemble

PLUGGED_IN: Final = "cacerts"
SELF_SIGNED: Final = "ztunnel-ca-secret"

_PEM = serialization.Encoding.PEM
_TYPE = "istio.io/ca-root"  # as istiod's


def read_secret(value: Mapping[str, Any], trust_domain: str, now: datetime) -> Authority:
    """The authority in a Secret as the API server gives it.

    Raises:
        ConfigError: what is wrong with it, by the Secret's name and key.
    """
    meta = value.get("metadata") or {}
    where = f"Secret {meta.get('namespace', '')}/{meta.get('name', '')}"
    data = value.get("data") or {}
    found: dict[str, bytes] = {}
    for name in sorted(NAMES & data.keys()):
        try:
            found[name] = base64.b64decode(data[name] or "", validate=True)
        except (binascii.Error, ValueError, TypeError) as error:
            raise ConfigError(Fault(f"{where}: {name}", 0, "", "not base64")) from error
    return read_authority(assemble(found, lambda name: f"{where}: {name}"), trust_domain, now)


def new_secret(namespace: str, now: datetime) -> dict[str, Any]:
    """A Secret with a new self-signed root."""
    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    certificate = template.root(key, now).public_bytes(_PEM)
    return _secret(
        namespace, {CA_CERT: certificate, CA_KEY: private, CERT_CHAIN: b"", ROOT_CERT: certificate}
    )


def secret_of(authority: Authority, namespace: str) -> dict[str, Any]:
    """The Secret that an authority was read from, made again."""
    private = authority.key.private_bytes(
        _PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    chain = b"".join(one.public_bytes(_PEM) for one in authority.presented)
    return _secret(
        namespace,
        {
            CA_CERT: authority.certificate.public_bytes(_PEM),
            CA_KEY: private,
            CERT_CHAIN: chain,
            ROOT_CERT: authority.roots_pem.encode(),
        },
    )


def _secret(namespace: str, data: Mapping[str, bytes]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": _TYPE,
        "metadata": {
            "name": SELF_SIGNED,
            "namespace": namespace,
            "labels": {"app.kubernetes.io/managed-by": "ztunnel-control"},
        },
        "data": {name: base64.b64encode(content).decode() for name, content in data.items()},
    }
