"""Which pods the agent wants served: what each of its messages changes, over all connections with it.

The agent names all of its pods whenever we connect, then says that it has (`SnapshotSent`); what it did not
name by then is not its any more. After that come single pods. A message that makes no sense changes nothing,
and costs only itself (ztunnel ends the connection, or itself: src/inpod/statemanager.rs).

    connected ── Add, Keep: named ──> SnapshotSent: whoever was not named leaves ──> Add, Delete
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from ztunnel.errors import PeerError
from ztunnel.zds.message import Add, Delete, Keep, Named, Request

MOST_PODS: Final = 4096
"""Of one node: the kubelet runs 110 by default, and some hundred where it is told to."""


@dataclass(frozen=True, slots=True)
class Listed:
    """One pod that is wanted; `cookie` is that of its network namespace."""

    pod: Named
    cookie: int


@dataclass(frozen=True, slots=True)
class Step:
    """What to do now: `stop` these, by uid, then `start` that one; "" for none."""

    stop: tuple[str, ...] = ()
    start: str = ""


class Roster:
    """The pods that are wanted, by the agent's uid."""

    def __init__(self, home: int, most: int = MOST_PODS) -> None:
        """`home` is the cookie of the node proxy's own namespace, which is nobody's pod."""
        self._home = home
        self._most = most
        self._listed: dict[str, Listed] = {}
        self._named: set[str] = set()
        self._whole = False

    @property
    def listed(self) -> Mapping[str, Listed]:
        """Those that are wanted now."""
        return self._listed

    @property
    def whole(self) -> bool:
        """Whether this connection's snapshot has come."""
        return self._whole

    def connect(self) -> None:
        """A new connection: the agent names its pods anew."""
        self._named.clear()
        self._whole = False

    def take(self, request: Request, cookie: int = 0) -> Step:
        """What a message changes. `cookie` is that of the namespace that came with it.

        Raises:
            PeerError: it makes no sense; nothing has changed.
        """
        if isinstance(request, Add):
            return self._add(request, cookie)
        if isinstance(request, Keep):
            return self._keep(request)
        if isinstance(request, Delete):
            self._named.discard(request.uid)
            known = self._listed.pop(request.uid, None)
            return Step(stop=(request.uid,) if known is not None else ())
        if self._whole:
            raise PeerError("SnapshotSent a second time")
        self._whole = True
        gone = tuple(uid for uid in self._listed if uid not in self._named)
        for uid in gone:
            del self._listed[uid]
        return Step(stop=gone)

    def _add(self, request: Add, cookie: int) -> Step:
        uid = request.uid
        if cookie == self._home:
            raise PeerError(
                f"{request.pod} is in the node proxy's own network namespace: it cannot be served"
            )
        other = next((uid for uid, each in self._listed.items() if each.cookie == cookie), uid)
        if other != uid:
            raise PeerError(f"the namespace of {request.pod} is that of {self._listed[other].pod} ({other})")
        known = self._listed.get(uid)
        if known is None and len(self._listed) >= self._most:
            raise PeerError(f"there are {self._most} pods, which is the most")
        self._named.add(uid)
        wanted = Listed(request.pod, cookie)
        if known == wanted:
            return Step()
        self._listed[uid] = wanted
        return Step(stop=(uid,) if known is not None else (), start=uid)

    def _keep(self, request: Keep) -> Step:
        if self._whole:
            raise PeerError("KeepWorkload after the snapshot")
        if request.uid not in self._listed:
            raise PeerError(f"pod {request.uid} is not known here: send its namespace")
        self._named.add(request.uid)
        return Step()
