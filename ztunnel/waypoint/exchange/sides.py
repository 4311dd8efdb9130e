"""The two sides of an exchange, as it sees them: the client's, and the server's."""

from __future__ import annotations

from typing import Protocol

from ztunnel.http1.head import Fields
from ztunnel.l7.request import Request


class Downstream(Protocol):
    """The client's end of an exchange."""

    def respond(self, fields: Fields, end: bool) -> None:
        """Send a response's head; with `end` nothing follows it."""

    def inform(self, fields: Fields) -> None:
        """Send a response that is only interim."""

    def send(self, payload: memoryview) -> None:
        """Send some of the response's body."""

    def finish(self, trailers: Fields) -> None:
        """The response is whole."""

    def reset(self) -> None:
        """The response cannot be completed: the client is to notice."""

    def taken(self, count: int) -> None:
        """Bytes of the request's body have left our hands."""

    def unsent(self) -> int:
        """Bytes that wait for the client."""


class Upstream(Protocol):
    """The server's end of an exchange: `host` is the server, for the log; `reused`, whether it has carried
    another request before this one."""

    @property
    def host(self) -> str: ...

    @property
    def reused(self) -> bool: ...

    def ask(self, request: Request, end: bool) -> None:
        """Send the request's head; with `end` nothing follows it."""

    def send(self, payload: memoryview) -> None:
        """Send some of the request's body."""

    def finish(self, trailers: Fields) -> None:
        """The request is whole."""

    def cancel(self) -> None:
        """Nobody waits for the response any more."""

    def taken(self, count: int) -> None:
        """Bytes of the response's body have left our hands."""

    def unsent(self) -> int:
        """Bytes that wait for the server."""


class Copy(Protocol):
    """A copy of the request that is sent somewhere else as well."""

    def body(self, payload: memoryview) -> None:
        """Some of the request's body has come."""

    def end(self, trailers: Fields) -> None:
        """The request is whole."""

    def give_up(self) -> None:
        """It will not be."""
