"""The ports of a pod that captured calls go to, and how they are kept out of its ephemeral ports.

A captured call goes to a port of the pod's own address that is derived from what was called, so that the
pod's ports are counted for each destination, as TCP has it. Nobody listens there: sk_lookup finds our
listener, which is bound to an address that nobody has. Were such a port the call's own as well, it would
reach itself; so they are reserved (`net.ipv4.ip_local_reserved_ports`), and the hook avoids one that was
chosen by hand.
"""

from __future__ import annotations

from functools import lru_cache

FIRST = 61440
PORTS = 4080
"""bpf/lib/config.h has the same two."""

LISTENER_PORTS = range(65535, FIRST + PORTS - 1, -1)
"""Where our listeners are bound that only sk_lookup finds: the first one that is free."""

_OURS = range(FIRST, 65536)


@lru_cache(maxsize=16)
def reserve(reserved: str) -> str:
    """The sysctl with our ports besides those that are there: 300 us, and mostly the same in all pods."""
    return _render(_parse(reserved).union(_OURS))


def release(reserved: str, before: str = "") -> str:
    """The sysctl without them, but for those that were reserved before."""
    return _render(_parse(reserved) - (frozenset(_OURS) - _parse(before)))


def _parse(reserved: str) -> frozenset[int]:
    found: set[int] = set()
    for part in reserved.replace("\n", "").split(","):
        first, _, last = part.strip().partition("-")
        if first:
            found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)


def _render(ports: frozenset[int]) -> str:
    """As the kernel shows it. It takes an empty line for none, and ignores an empty text."""
    parts: list[str] = []
    first = last = -1
    for port in (*sorted(ports), 1 << 20):
        if port == last + 1:
            last = port
            continue
        if last >= 0:
            parts.append(f"{first}-{last}" if last > first else str(first))
        first = last = port
    return ",".join(parts) or "\n"
