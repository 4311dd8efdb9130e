"""Watches the application's end of a tunnel: its socket, and what is waited for at it."""

from __future__ import annotations

import socket
from typing import Final

from ztunnel.hbone.hold import TunnelSession, TunnelStream

_UNWATCHED: Final = -1


class ApplicationEnd(TunnelStream):
    """A stream with a socket, which need not be there from the start. `_events` is what is waited for, by
    epoll's mask."""

    __slots__ = ("_app", "_events", "_fd", "_session")

    def __init__(self, session: TunnelSession) -> None:
        super().__init__()
        self._session = session
        self._app: socket.socket | None = None
        self._fd = -1
        self._events = _UNWATCHED

    def _ready(self, mask: int) -> None:
        """Something of it has come."""
        raise NotImplementedError

    def _abandon(self, bug: BaseException) -> None:
        """`_ready` has raised: the tunnel is over."""
        raise NotImplementedError

    def _watch(self, events: int) -> None:
        if events == self._events:
            return
        if self._events == _UNWATCHED:
            session = self._session
            session.engine.watch(self._fd, events, self._ready, self._abandon, session.share)
        else:
            self._session.engine.rewatch(self._fd, events)
        self._events = events

    def _watch_more(self, events: int) -> None:
        self._watch(events if self._events == _UNWATCHED else self._events | events)

    def _watch_less(self, events: int) -> None:
        if self._events != _UNWATCHED:
            self._watch(self._events & ~events)

    def _unwatch(self) -> None:
        if self._events != _UNWATCHED:
            self._session.engine.unwatch(self._fd)
            self._events = _UNWATCHED

    def _forget(self) -> None:
        """As `_unwatch`, of a socket that is closed before the next round."""
        if self._events != _UNWATCHED:
            self._session.engine.forget(self._fd)
            self._events = _UNWATCHED
