"""The texts of settings, and what each may be.

A reader takes the text and gives the value, or raises ValueError with what is accepted: `1x is not <that>`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import TypeVar

from ztunnel.errors import PeerError
from ztunnel.model.address import Endpoint, parse_endpoint, parse_ip

Parse = Callable[[str], object]
_Word = TypeVar("_Word", bound=StrEnum)

_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?(?:(\d+)ms)?")
_SIZE = re.compile(r"(\d+)(Ki|Mi|Gi|)")
_URL = re.compile(r"https?://([a-zA-Z0-9._-]+|\[[0-9a-fA-F:]+\]):[0-9]{1,5}")
_COLLECTOR = re.compile(_URL.pattern + r"(/[!-~]*)?")
_DNS_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,251}[a-z0-9])?")
_ACCOUNT = re.compile(r"[a-z0-9.-]+/[a-z0-9.-]+")
_LEVEL = re.compile(r"([\w:.*-]+[=:])?(trace|debug|info|warn|error|off)", re.ASCII)

_LABEL_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
_DNS_PREFIX = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")


_SIGNER = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)+/[A-Za-z0-9._/-]+")


def text(raw: str) -> str:
    return raw


def name(raw: str) -> str:
    if not _DNS_NAME.fullmatch(raw):
        raise ValueError("a name of lower-case letters, digits, dots and dashes")
    return raw


def names(raw: str) -> tuple[str, ...]:
    """With commas between them."""
    return tuple(name(part.strip()) for part in raw.split(",") if part.strip())


def host(raw: str) -> str:
    """A DNS name or an address, or nothing for none."""
    if raw and not _DNS_NAME.fullmatch(raw):
        try:
            parse_ip(raw)
        except PeerError as error:
            raise ValueError("a DNS name or an address") from error
    return raw


def hosts(raw: str) -> tuple[str, ...]:
    """With commas between them."""
    return tuple(host(part.strip()) for part in raw.split(",") if part.strip())


def accounts(raw: str) -> tuple[str, ...]:
    """`namespace/name`, with commas between them; at least one."""
    found = tuple(part.strip() for part in raw.split(",") if part.strip())
    if not found or not all(_ACCOUNT.fullmatch(one) for one in found):
        raise ValueError("<namespace>/<service account>, with commas")
    return found


def networks(raw: str) -> tuple[IPv4Network | IPv6Network, ...]:
    """Addresses and CIDRs with commas between them."""
    try:
        return tuple(ip_network(part.strip()) for part in raw.split(",") if part.strip())
    except ValueError as error:
        raise ValueError("addresses and CIDRs such as 10.0.0.0/8, with commas") from error


def flag(raw: str) -> bool:
    if raw.lower() not in ("true", "false"):
        raise ValueError("true or false")
    return raw.lower() == "true"


def duration(raw: str) -> float:
    """Go's durations, as Istio writes them: `24h`, `1m30s`, `250ms`."""
    match = _DURATION.fullmatch(raw)
    if not raw or match is None:
        raise ValueError("a duration such as 24h, 1m30s, 5s, 250ms")
    hours, minutes, seconds, milliseconds = (float(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + seconds + milliseconds / 1000


def positive_duration(raw: str) -> float:
    seconds = duration(raw)
    if seconds <= 0:
        raise ValueError("a duration longer than zero, such as 24h, 1m30s, 5s, 250ms")
    return seconds


def keepalive_duration(raw: str) -> float:
    seconds = positive_duration(raw)
    if seconds > 32767:  # tcp(7)
        raise ValueError("a duration up to 32767s, such as 180s, 10m")
    return seconds


def bytes_from(least: int, most: int) -> Parse:
    def parse(raw: str) -> int:
        match = _SIZE.fullmatch(raw)
        unit = {"": 1, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}
        size = int(match[1]) * unit[match[2]] if match and len(match[1]) < 16 else -1
        if not least <= size <= most:
            raise ValueError(f"a number of bytes from {least} to {most}, also as 64Ki, 16Mi, 1Gi")
        return size

    return parse


def number(least: int, most: int) -> Callable[[str], int]:
    def parse(raw: str) -> int:
        if not (raw.isascii() and raw.isdigit() and len(raw) < 16 and least <= int(raw) <= most):
            raise ValueError(f"a number from {least} to {most}")
        return int(raw)

    return parse


def one_of(*words: str) -> Parse:
    def parse(raw: str) -> str:
        if raw not in words:
            raise ValueError(" or ".join(words))
        return raw

    return parse


def member(kind: type[_Word]) -> Callable[[str], _Word]:
    """One of the words of an enumeration."""

    def parse(raw: str) -> _Word:
        try:
            return kind(raw)
        except ValueError as error:
            raise ValueError(" or ".join(kind)) from error

    return parse


def path(raw: str) -> Path:
    if not raw.startswith("/"):
        raise ValueError("an absolute path")
    return Path(raw)


def label_key(raw: str) -> str:
    """Of a label, an annotation or a taint; empty for none."""
    prefix, slash, name = raw.rpartition("/")
    fits = _LABEL_NAME.fullmatch(name) and len(raw) <= 317
    if raw and not (fits and (not slash or _DNS_PREFIX.fullmatch(prefix))):
        raise ValueError("a key such as ztunnel.io/not-ready")
    return raw


def signer(raw: str) -> str:
    """A signerName of the Kubernetes CSR API: `domain/path`; empty for none."""
    if raw and (not _SIGNER.fullmatch(raw) or len(raw) > 571):
        raise ValueError("the name of a signer, such as example.com/mesh")
    if raw.startswith("kubernetes.io/"):
        raise ValueError("a signer for workloads; those of kubernetes.io sign for nodes and API servers")
    return raw


def object_name(raw: str) -> str:
    """`namespace/name` of a Kubernetes object, or nothing for none."""
    if raw and not re.fullmatch(r"[a-z0-9.-]+/[a-z0-9.-]+", raw):
        raise ValueError("namespace/name, or nothing for none")
    return raw


def maybe_path(raw: str) -> Path | None:
    return Path(raw) if raw else None


def levels(raw: str) -> str:
    if not all(_LEVEL.fullmatch(part) for part in raw.split(",")):
        raise ValueError("<level> or <scope>=<level>, with commas; of trace, debug, info, warn, error, off")
    return raw


def address(raw: str) -> str:
    """`https://host:port` of a control plane, or nothing for none."""
    url = f"https://{raw}" if raw and "://" not in raw else raw
    if url and not _URL.fullmatch(url):
        raise ValueError("https://<host>:<port>, or nothing for none")
    return url


def collector(raw: str) -> str:
    """Where spans are sent to by OTLP/HTTP, or nothing; a URL without a path gets the usual one."""
    if raw and not _COLLECTOR.fullmatch(raw):
        raise ValueError("http://<host>:<port>[/<path>], or nothing for none")
    return raw + "/v1/traces" if _URL.fullmatch(raw) else raw


def percentage(raw: str) -> float:
    try:
        value = float(raw)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 100:
        raise ValueError("a number from 0 to 100")
    return value


def listen(raw: str) -> Endpoint:
    """`ip:port` or, as Istio writes it, `localhost:port`."""
    try:
        return parse_endpoint(re.sub("^localhost:", "127.0.0.1:", raw))
    except PeerError as error:
        raise ValueError("an address with a port, such as 127.0.0.1:15000 or [::]:15020") from error


def namespace_path(raw: str) -> str:
    """Where the network namespace of a pod is: a path with `{namespace}` and `{name}`."""
    filled = raw.replace("{namespace}", "").replace("{name}", "")
    if raw and (not raw.startswith("/") or "{name}" not in raw or "{" in filled or "}" in filled):
        raise ValueError("an absolute path with {namespace} and {name} in it")
    return raw
