"""Where the requests through one tunnel go: what is found out of a destination once for each world, and only
the choice among its endpoints for each request.

```
asked ── the world is another one, or its endpoints are ──> decided anew, and kept by endpoint
   └──── as before ── an endpoint is chosen ── known ──> there
```
"""

from __future__ import annotations

from typing import Final

from ztunnel.l7.balancing.cluster import Cluster
from ztunnel.l7.balancing.host import Host
from ztunnel.model.address import Endpoint, IPAddress, OriginalDestination
from ztunnel.model.route_action import Destination
from ztunnel.state.world import Served, World
from ztunnel.waypoint.upstream.clusters import Kept
from ztunnel.waypoint.upstream.pick import Pick
from ztunnel.waypoint.upstream.spot import Spot, Target, spot_of

_MOST: Final = 256
"""Destinations of one tunnel, and endpoints of one destination, that are kept; then it starts afresh."""


class Place:
    """An endpoint as a destination of requests.

    Attributes:
        target: what it is.
        text: its address, for the log.
        spot1, spot2: how it is called in HTTP/1.1, and in HTTP/2.
    """

    __slots__ = ("spot1", "spot2", "target", "text")

    def __init__(self, target: Target, cluster: Cluster | None) -> None:
        self.target = target
        self.text = str(target.endpoint)
        self.spot1: Spot = spot_of(target, cluster, "http/1.1")
        self.spot2: Spot = spot_of(target, cluster, "h2")


class Aim:
    """One destination of one tunnel.

    Attributes:
        sought: what a route means; None: what was called.
        kept: the cluster that is chosen from; None: it is not known, or there is none.
        asked: the address and port for which that is.
        served: the service as it is in this world: the cluster is up to date while it was made of that.
    """

    __slots__ = ("_places", "asked", "kept", "served", "sought")

    def __init__(self, sought: Destination | None) -> None:
        self.sought = sought
        self.kept: Kept | None = None
        self.asked: Endpoint | None = None
        self.served: Served | None = None
        self._places: dict[Host, Place] = {}

    def place(self, host: Host) -> Place | None:
        """That of an endpoint, where it is known."""
        return self._places.get(host)

    def learn(self, pick: Pick, place: Place) -> None:
        """A choice among endpoints that are up to date has led there."""
        kept, host = pick.kept, pick.host
        if kept is None or host is None:
            return
        if kept is not self.kept or kept.served is not self.served or len(self._places) >= _MOST:
            self.kept, self.asked, self.served = kept, pick.asked, kept.served
            self._places.clear()
        self._places[host] = place


class Aims:
    """Those of one tunnel."""

    __slots__ = ("_found", "_mark")

    def __init__(self) -> None:
        self._mark: object = None
        self._found: dict[int, Aim] = {}

    def of(self, world: World, sought: Destination | None) -> Aim:
        """That of a destination, in that world."""
        if world.mark is not self._mark or len(self._found) >= _MOST:
            self._found.clear()
            self._mark = world.mark
        aim = self._found.get(id(sought))
        if aim is None:
            aim = self._found[id(sought)] = Aim(sought)
        return aim


class Terms:
    """How the requests through one tunnel are sent.

    Attributes:
        called: what was called.
        caller: who sends them.
        version: of HTTP, in which the client asks.
        aims: where they go.
    """

    __slots__ = ("aims", "called", "caller", "version")

    def __init__(self, called: OriginalDestination, caller: IPAddress, version: int = 1) -> None:
        self.called = called
        self.caller = caller
        self.version = version
        self.aims = Aims()
