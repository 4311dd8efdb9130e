"""Connects a node proxy to a control plane over the network, as Istio's ztunnel does (src/tls/control.rs,
src/identity/auth.rs): its certificate is checked, ours is a token."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import trio

from ztunnel.errors import ConfigError, Fault, reason_of
from ztunnel.rpc.call import Channel, open_channel
from ztunnel.rpc.limits import CLIENT, Limits
from ztunnel.rpc.status import RpcError

_MISMATCH: Final = "Hostname mismatch", "IP address mismatch"  # OpenSSL's X509_V_ERR_..._MISMATCH

_UNTRUSTED: Final = "CERTIFICATE_VERIFY_FAILED"

DEFAULT_TOKEN: Final = "./var/run/secrets/tokens/istio-token"
"""Where Kubernetes puts it; a process for which there is none shows no token."""

_SYSTEM: Final = "SYSTEM"


@dataclass(frozen=True, slots=True)
class Upstream:
    """A control plane as the settings name it.

    Attributes:
        name: of the settings, for messages: `XDS` or `CA`.
        address: `https://host:port`.
        roots: a path, `SYSTEM`, or PEM certificates.
        alternative: another name that its certificate may be for.
        token: a path or the token itself.
        metadata: of each call, beside the token.
    """

    name: str
    address: str
    roots: str
    alternative: str = ""
    token: str = field(default=DEFAULT_TOKEN, repr=False)
    metadata: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    def check(self) -> None:
        """Raises ConfigError for an address that cannot be used: a token is never sent in plaintext."""
        if urlsplit(self.address).scheme != "https":
            raise self._fault(f"{self.address!r} is plaintext, in which no token is sent: https://")

    @asynccontextmanager
    async def open(self, limits: Limits = CLIENT) -> AsyncIterator[Channel]:
        """A connection for the block; roots are read anew for each.

        Raises:
            ConfigError: the roots cannot be read. RpcError: UNAVAILABLE.
        """
        self.check()
        context = await trio.to_thread.run_sync(self._context)
        async with AsyncExitStack() as stack:
            yield await self._connect(stack, context, limits)

    async def credentials(self) -> dict[str, str]:
        """Metadata for one call; the token's file is read for each, as the kubelet replaces it.

        Raises:
            ConfigError: the file cannot be read, or is empty.
        """
        token = await trio.to_thread.run_sync(self._read_token)
        shown = {"authorization": f"Bearer {token}"} if token else {}
        return {**shown, **dict(self.metadata)}

    async def _connect(self, stack: AsyncExitStack, context: ssl.SSLContext, limits: Limits) -> Channel:
        """By the address' own name, or the other one that the certificate may be for."""
        parts = urlsplit(self.address)
        host, port = parts.hostname or "", parts.port or 443

        async def opened(name: str) -> Channel:
            return await stack.enter_async_context(open_channel(host, port, lambda: context, name, limits))

        try:
            return await opened("")
        except RpcError as error:
            if _UNTRUSTED in error.message and not any(text in error.message for text in _MISMATCH):
                where = "the PEM text" if "-----BEGIN" in self.roots else self.roots
                trusted = f"what is trusted is in {where} ({self.name}_ROOT_CA), read anew each time"
                raise RpcError(error.code, f"{error.message}; {trusted}") from error
            if not self.alternative or not any(text in error.message for text in _MISMATCH):
                raise
        return await opened(self.alternative)

    def _read_token(self) -> str:
        if not self.token:
            return ""
        path = Path(self.token)
        try:
            if not self.token.startswith(("/", "./")):
                return self.token
            if self.token == DEFAULT_TOKEN and not path.exists():
                return ""
            text = path.read_text("ascii").strip()
        except (OSError, ValueError) as error:
            raise self._fault(f"{path}: {reason_of(error)}", "AUTH_TOKEN") from error
        if not text:
            raise self._fault(f"{path} is empty", "AUTH_TOKEN")
        return text

    def _context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["h2"])
        try:
            if self.roots == _SYSTEM:
                context.load_default_certs()
            elif "-----BEGIN" in self.roots:
                context.load_verify_locations(cadata=self.roots)
            else:
                context.load_verify_locations(cafile=self.roots)
        except OSError as error:  # ssl.SSLError is one
            where = "the PEM text" if "-----BEGIN" in self.roots else self.roots
            message = f"no root certificates in {where}: {error.strerror or error}"
            raise self._fault(message, f"{self.name}_ROOT_CA") from error
        return context

    def _fault(self, message: str, variable: str = "") -> ConfigError:
        return ConfigError(Fault("environment", 0, variable or f"{self.name}_ADDRESS", message))
