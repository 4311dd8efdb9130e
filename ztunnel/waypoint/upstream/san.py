"""Whether a server's certificate is for whom is called: by its subject alternative names (RFC 9525; Envoy's
match_typed_subject_alt_names). The subject's common name counts for nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import ip_address


def check_names(certificate: Mapping[str, object], wanted: Iterable[str], name: str) -> str:
    """Why it is not, in words; empty: it is.

    Args:
        certificate: as `ssl` reads it.
        wanted: names of which the certificate must have one; none: it must have `name`.
        name: that the server is called by; empty: it has none, and any certificate of a trusted authority
            will do.
    """
    found = list(_names(certificate))
    asked = list(wanted) or ([name] if name else [])
    if not asked or any(_means(kind, has, each) for kind, has in found for each in asked):
        return ""
    has = ", ".join(text for _, text in found[:5]) or "no names"
    return f"the server's certificate is for {has}, not for {' or '.join(asked[:5])}"


def _names(certificate: Mapping[str, object]) -> Iterable[tuple[str, str]]:
    said = certificate.get("subjectAltName", ())
    if isinstance(said, tuple):
        for kind, text in said:
            if kind in ("DNS", "URI", "IP Address", "email"):
                yield kind, str(text).strip()


def _means(kind: str, has: str, asked: str) -> bool:
    if kind == "IP Address":
        try:
            return ip_address(has) == ip_address(asked)
        except ValueError:
            return False
    if kind != "DNS":
        return has == asked
    has, asked = has.lower().rstrip("."), asked.lower().rstrip(".")
    if has.startswith("*."):
        first, _, rest = asked.partition(".")
        return bool(first) and rest == has[2:] and "." in rest
    return has == asked
