"""Network namespaces: entered for the length of one system call or block, never left half-way.

A namespace belongs to a thread. Everything here enters, acts and comes back without an `await`, so no other
task of the thread ever runs in a pod's namespace. If the way back fails the process aborts: a proxy that goes
on in a pod's namespace would send one pod's traffic as another's.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import math
import os
import socket
import sys
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import cast

from ztunnel.kernel.tcp import STREAM, TcpSocket

_CLONE_NEWNET = 0x40000000
_SO_NETNS_COOKIE = 71  # asm-generic/socket.h, since Linux 5.14
_NS_GET_NSTYPE = 0xB703  # linux/nsfs.h, since Linux 4.11
_MARKED = (socket.AF_INET, socket.AF_INET6)
_OWN_NAMESPACE = "/proc/thread-self/ns/net"
_PROC, _HOST_PROC = Path("/proc"), Path("/host/proc")
_SYSCTL_BYTES = 1 << 16
IN_ADVANCE = 7
_QUICK_SECONDS = 0.05
"""Asked for again within this time, sockets are made in advance: so many of a pod's, while connections to it
come faster than that."""

_PORTS_SECONDS = 10.0
"""So long a namespace's range of ports is remembered: the pod may change it at any time, and reading it costs
as much as three connections."""

_DEFAULT_PORTS = 32768, 60999
_FLAGS = int(socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)

_Socket = socket.socket
_libc = ctypes.PyDLL(None, use_errno=True)


def _setns(fd: int) -> None:
    if _libc.setns(fd, _CLONE_NEWNET) < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"setns: {os.strerror(code)}")


class _Entered:
    """No generator: pods' sockets are made within."""

    __slots__ = ("_fd", "_home")

    def __init__(self, fd: int, home: int) -> None:
        self._fd = fd
        self._home = home

    def __enter__(self) -> None:
        _setns(self._fd)

    def __exit__(self, *_: object) -> None:
        try:
            _setns(self._home)
        except OSError:
            os.abort()


class NetworkNamespace:
    """An open handle to a network namespace; it keeps the namespace alive until `close()`.

    Attributes:
        path: where it was opened, for messages.
        inode: the number in `net:[inode]`.
        cookie: what `bpf_get_netns_cookie()` returns in it; never reused while the machine runs.
        mark: what TCP and UDP sockets that are made here put on their packets (SO_MARK); 0 for nothing.
    """

    def __init__(self, fd: int, path: str, mark: int = 0) -> None:
        """Takes over `fd`, also where it raises OSError. Opens the calling thread's own namespace besides:
        the way back."""
        self.path = path
        self.mark = mark
        self._fd, self._home = fd, -1
        self._spare: dict[int, list[_Socket]] = {}
        self._made_at: dict[int, float] = {}
        self._ports = _DEFAULT_PORTS
        self._ports_until = -math.inf
        try:
            self._home = os.open(_OWN_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)
            self.inode = os.fstat(fd).st_ino
            with self.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
                self.cookie = int.from_bytes(
                    probe.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8), sys.byteorder
                )
        except OSError:
            self.close()
            raise

    @classmethod
    def open(cls, path: str | Path) -> NetworkNamespace:
        """Open `/run/netns/<name>`, `/proc/<pid>/ns/net` or the like. Raises OSError."""
        return cls(os.open(path, os.O_RDONLY | os.O_CLOEXEC), str(path))

    @property
    def spares(self) -> int:
        """How many sockets were made in advance and are not used."""
        return sum(map(len, self._spare.values()))

    def fileno(self) -> int:
        """The descriptor, still owned by this object."""
        return self._fd

    def socket(self, family: int, kind: int, protocol: int = 0) -> _Socket:
        """A new non-blocking socket that lives in this namespace. Raises OSError."""
        with self.entered():
            made = socket.socket(family, kind | _FLAGS, protocol)
        return self._marked(made)

    def tcp_socket(self, family: int) -> _Socket:
        """The same for flows: a `TcpSocket`. Raises OSError.

        Entering a namespace costs as much as making four sockets: where they are asked for in quick
        succession, some are made in advance.
        """
        spare = self._spare.get(family)
        return spare.pop() if spare else self._several(family)

    def _several(self, family: int) -> _Socket:
        """One, and others in advance."""
        spare = self._spare.setdefault(family, [])
        now = time.monotonic()
        quick = now - self._made_at.get(family, -math.inf) < _QUICK_SECONDS
        self._made_at[family] = now
        with self.entered():
            made = self._marked(_new_tcp(family))
            # Where descriptors run out, there is at least the one that is asked for.
            with suppress(OSError):
                while quick and len(spare) < IN_ADVANCE:
                    spare.append(self._marked(_new_tcp(family)))
        return made

    def _marked(self, made: _Socket) -> _Socket:
        if self.mark and made.family in _MARKED:
            try:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, self.mark)
            except OSError:
                made.close()
                raise
        return made

    def entered(self) -> AbstractContextManager[None]:
        """The calling thread is in this namespace inside the block. Never await in it."""
        return _Entered(self._fd, self._home)

    def read_sysctl(self, name: str) -> str:
        """The value of e.g. `net.ipv4.tcp_fwmark_accept` in this namespace. Raises OSError."""
        with self.entered():
            return _sysctl(name).read_text().strip()

    def ephemeral_ports(self) -> tuple[int, int]:
        """The range that connect() chooses a port from, both ends included; as it was some seconds ago at
        most. Raises OSError."""
        now = time.monotonic()
        if now >= self._ports_until:
            low, _, high = self.read_sysctl("net.ipv4.ip_local_port_range").partition("\t")
            self._ports, self._ports_until = (int(low), int(high)), now + _PORTS_SECONDS
        return self._ports

    def read_sysctls(self, names: Iterable[str]) -> dict[str, str]:
        """The values of several, but for those that this kernel does not have; 8 us each. Raises OSError."""
        found: dict[str, str] = {}
        with self.entered():
            for name in names:
                try:
                    fd = os.open(f"/proc/sys/{name.replace('.', '/')}", os.O_RDONLY | os.O_CLOEXEC)
                except FileNotFoundError:
                    continue
                try:
                    found[name] = os.read(fd, _SYSCTL_BYTES).decode().strip()
                finally:
                    os.close(fd)
        return found

    def write_sysctl(self, name: str, value: str) -> None:
        """Set e.g. `net.ipv4.tcp_fwmark_accept` in this namespace. Raises OSError.

        In a container /proc/sys can only be read. The host's /proc at /host/proc can be written, and shows
        the namespace of whoever looks (net/sysctl_net.c).
        """
        with self.entered():
            try:
                _sysctl(name).write_text(value)
            except OSError as error:
                if error.errno != errno.EROFS:
                    raise
                if not _HOST_PROC.is_dir():
                    reason = f"read-only here: mount the host's /proc at {_HOST_PROC} (hostPath)"
                    raise OSError(errno.EROFS, reason, name) from error
                _sysctl(name, _HOST_PROC).write_text(value)

    def has_ipv6(self) -> bool:
        """Whether it speaks IPv6 with itself: the kernel does, and lo may. Raises OSError."""
        try:
            return self.read_sysctl("net.ipv6.conf.lo.disable_ipv6") == "0"
        except FileNotFoundError:
            return False

    def close(self) -> None:
        """Let go of the namespace. Sockets that were given out stay."""
        for spare in self._spare.values():
            for unused in spare:
                unused.close()
        self._spare.clear()
        for fd in (self._fd, self._home):
            if fd >= 0:
                os.close(fd)
        self._fd = self._home = -1

    def __enter__(self) -> NetworkNamespace:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _new_tcp(family: int) -> _Socket:
    return cast("socket.socket", TcpSocket(family, STREAM | _FLAGS))


def is_network_namespace(fd: int) -> bool:
    """Whether that is an open network namespace, and nothing else that setns(2) would take, such as a
    process."""
    try:
        return fcntl.ioctl(fd, _NS_GET_NSTYPE) == _CLONE_NEWNET
    except OSError:
        return False


def current() -> NetworkNamespace:
    """The calling thread's namespace."""
    return NetworkNamespace.open(_OWN_NAMESPACE)


def own() -> NetworkNamespace:
    """As `current`, for a process that stays in it: takes no right to enter a namespace."""
    return OwnNamespace.open(_OWN_NAMESPACE)


class OwnNamespace(NetworkNamespace):
    """The namespace that the process is in, and stays in."""

    def entered(self) -> AbstractContextManager[None]:
        """It is entered already."""
        return nullcontext()


class Here:
    """Where the calling thread is. Takes no right to enter a namespace, as `current()` does."""

    def socket(self, family: int, kind: int, protocol: int = 0) -> _Socket:
        """A new non-blocking socket. Raises OSError."""
        return socket.socket(family, kind | _FLAGS, protocol)


def _sysctl(name: str, proc: Path = _PROC) -> Path:
    return Path(proc, "sys", *name.split("."))
