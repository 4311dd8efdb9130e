"""Sends whole packets inside a pod's namespace, to the pod itself."""

from __future__ import annotations

import socket

from ztunnel.kernel.netns import NetworkNamespace


class Injector:
    """Raw sockets of one namespace, made when they are needed. They receive nothing."""

    def __init__(self, namespace: NetworkNamespace) -> None:
        self._namespace = namespace
        self._sockets: dict[int, socket.socket] = {}

    def send(self, packet: bytes, host: str) -> None:
        """A packet with its IP header to an address of the pod: when this returns the pod's kernel has taken
        it. Raises OSError."""
        version = packet[0] >> 4
        raw = self._sockets.get(version)
        if raw is None:
            family = socket.AF_INET if version == 4 else socket.AF_INET6
            raw = self._sockets[version] = self._namespace.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)
        raw.sendto(packet, (host, 0))

    def close(self) -> None:
        """Let go of the sockets; whoever sends again gets new ones."""
        for raw in self._sockets.values():
            raw.close()
        self._sockets.clear()
