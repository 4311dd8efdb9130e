"""Prepares a pod's namespace for sockets that show a client's address, and keeps it so: their replies have
to find them."""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Mapping
from contextlib import suppress

from ztunnel.kernel.filter import allow_forwarded
from ztunnel.kernel.netns import NetworkNamespace
from ztunnel.kernel.way_back import BOTH, WayBack, WayBlocked, remove_way_back
from ztunnel.redirect import capture

__all__ = ["Preparation", "WayBlocked", "disown"]

_REFLECT = ("net.ipv4.fwmark_reflect", "net.ipv6.fwmark_reflect")
"""Where nobody listens, our own dial is answered by a RST of no socket. Without the dial's mark it would go
to the client whose address the dial carries, and the dial would wait for its deadline."""

_SWITCHES = ("net.ipv4.tcp_fwmark_accept", "net.ipv4.tcp_migrate_req", *_REFLECT)
_OFF, _ON = "0", "1"  # the kernel's default of each, and what we need
_RESERVED, _IPV6_OFF = "net.ipv4.ip_local_reserved_ports", "net.ipv6.conf.lo.disable_ipv6"
_ALL = (*_SWITCHES, _RESERVED, _IPV6_OFF)


class Preparation:
    """The sysctls, rules and routes of one pod that are ours."""

    def __init__(self, netns: NetworkNamespace, is_known: bool) -> None:
        """Remembers the sysctls as they are; where a predecessor of ours has set them (`is_known`), as the
        kernel has them. Raises OSError."""
        self._netns = netns
        now = netns.read_sysctls(_ALL)
        self._before = {name: _OFF if is_known else now[name] for name in _required(now)}
        self._reserved = "" if is_known else now[_RESERVED]
        self._seen_reserved: str | None = None
        self._way_back = WayBack()

    def ensure(self, interfaces: Collection[int] = ()) -> list[str]:
        """Make what is missing; some 100 us where all is there.

        Args:
            interfaces: by which others reach the pod, and on which its servers may listen.

        Returns:
            What had to be made: `IPv4 rule`, `IPv6 route`, the names of sysctls.

        Raises:
            WayBlocked: others in the pod are in the way.
            OSError: the kernel refuses.
        """
        now = self._netns.read_sysctls(_ALL)
        made = [name for name in _required(now) if now[name] != _ON and self._switch_on(name)]
        reserved = now[_RESERVED]
        if reserved != self._seen_reserved and capture.reserve(reserved) != reserved:
            self._netns.write_sysctl(_RESERVED, capture.reserve(reserved))
            made.append(_RESERVED)
        else:
            self._seen_reserved = reserved
        has_ipv6 = now.get(_IPV6_OFF) == _OFF
        return made + self._way_back.ensure(self._netns, BOTH if has_ipv6 else BOTH[:1], interfaces)

    def _switch_on(self, name: str) -> bool:
        """Whether it is on now: IPv6 may be none of this namespace's, whatever could be read."""
        try:
            self._netns.write_sysctl(name, _ON)
        except FileNotFoundError:
            if not name.startswith("net.ipv6."):
                raise
            return False
        return True

    def undo(self) -> None:
        """Leave the namespace as it was. Where it is being taken down, there is nothing to undo."""
        _restore(self._netns, self._before, self._reserved)


def _required(now: Mapping[str, str]) -> list[str]:
    """The sysctls that we set, as far as this kernel has them: one without IPv6 has none of its. Raises
    FileNotFoundError for others."""
    for name in _SWITCHES:
        if name not in now and not name.startswith("net.ipv6."):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
    return [name for name in _SWITCHES if name in now]


def disown(netns: NetworkNamespace) -> None:
    """Undo what a proxy that is gone changed in a pod's namespace; sysctls become the kernel's defaults."""
    _restore(netns, dict.fromkeys(_SWITCHES, _OFF))
    with suppress(OSError):
        allow_forwarded(netns)


def _restore(netns: NetworkNamespace, values: Mapping[str, str], reserved: str = "") -> None:
    with suppress(OSError):
        remove_way_back(netns)
    with suppress(OSError):
        netns.write_sysctl(_RESERVED, capture.release(netns.read_sysctl(_RESERVED), reserved))
    for name, value in values.items():
        with suppress(OSError):
            netns.write_sysctl(name, value)
