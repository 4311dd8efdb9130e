"""Which capabilities this process has (capabilities(7)), and which of those that it needs are missing."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from pathlib import Path

from ztunnel.errors import Unsupported


class Capability(IntEnum):
    """include/uapi/linux/capability.h."""

    NET_BIND_SERVICE = 10
    NET_ADMIN = 12
    NET_RAW = 13
    SYS_PTRACE = 19
    SYS_ADMIN = 21
    PERFMON = 38
    BPF = 39


_PARTS_OF_ADMIN = {Capability.BPF, Capability.PERFMON}
"""What SYS_ADMIN includes (`bpf_capable`, `perfmon_capable` in include/linux/capability.h)."""

LOADER = {
    Capability.BPF: "loads programs and makes maps",
    Capability.NET_ADMIN: "attaches programs of the network",
    Capability.PERFMON: "loads programs that read a socket's fields",
}
HOLDER = {
    Capability.NET_ADMIN: "removes rules and routes in pods that are let go",
    Capability.SYS_ADMIN: "enters their network namespaces",
    Capability.SYS_PTRACE: "opens the namespaces of pods' processes",
}
PROXY = {
    Capability.NET_ADMIN: "sets rules, routes and transparent sockets in pods, attaches programs to them",
    Capability.NET_BIND_SERVICE: "keeps a client's port where that is below 1024",
    Capability.NET_RAW: "sends packets of calls that it held",
    Capability.SYS_ADMIN: "enters the network namespaces of pods",
    Capability.SYS_PTRACE: "opens the namespaces of pods' processes",
}

REDIRECTED = {
    Capability.NET_ADMIN: "marks packets and sets transparent sockets in pods",
    Capability.SYS_ADMIN: "enters the network namespaces of pods",
}
"""Where others redirect pods."""


def effective(status: Path = Path("/proc/thread-self/status")) -> frozenset[Capability]:
    """Those of ours that count, of the ones above."""
    for line in status.read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "CapEff":
            bits = int(value, 16)
            found = {each for each in Capability if bits >> each & 1}
            return frozenset(found | _PARTS_OF_ADMIN if Capability.SYS_ADMIN in found else found)
    return frozenset()


def missing(wanted: Iterable[Capability], held: frozenset[Capability]) -> list[Capability]:
    """In the order of `wanted`."""
    return [each for each in wanted if each not in held]


def require(wanted: dict[Capability, str], who: str) -> None:
    """We have all of these; `wanted` says what each is for.

    Raises:
        Unsupported: names what is missing, and what `who` does with it.
    """
    lacking = missing(wanted, effective())
    if lacking:
        reasons = "; ".join(f"with {each.name} it {wanted[each]}" for each in lacking)
        names = ", ".join(each.name for each in lacking)
        raise Unsupported(
            f"{who} lacks the capabilities {names}: {reasons} (securityContext.capabilities.add)"
        )
