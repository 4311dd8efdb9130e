"""Hosts in Istio's resources: short names made whole, and `*` (istio/istio pkg/config/host,
pilot/pkg/model ResolveShortnameToFQDN)."""

from __future__ import annotations

from collections.abc import Iterator


def whole_name(host: str, namespace: str, cluster_domain: str) -> str:
    """A name without a dot is that of a service of the object's own namespace; others stay as they are."""
    if "." in host or ":" in host or host == "*" or not host:
        return host
    return f"{host}.{namespace}.svc.{cluster_domain}"


def covering(host: str) -> Iterator[str]:
    """All that a resource may write to mean this host, the most specific first: itself, `*.` and each of its
    ends, `*`."""
    yield host
    rest = host.removeprefix("*.") if host.startswith("*.") else host
    while "." in rest:
        rest = rest.partition(".")[2]
        yield f"*.{rest}"
    if host != "*":
        yield "*"


def covers(pattern: str, host: str) -> bool:
    """Whether `pattern`, which may begin with `*`, means this host."""
    if pattern == "*":
        return True
    return pattern == host or (
        pattern.startswith("*.") and host.endswith(pattern[1:]) and host != pattern[2:]
    )


def is_exported(export_to: tuple[str, ...], own: str, client: str) -> bool:
    """Whether an object of the namespace `own` is there for clients of `client`: for all where it does not
    say."""
    if not export_to or "*" in export_to or client in export_to:
        return True
    return "." in export_to and own == client
