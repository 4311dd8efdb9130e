"""Forwards what is no HTTP through one tunnel: to a server, and back, as it is.

```
started ── a server stands ──> joined ──> over
   └── refused, cancelled, nobody there ──> over
```
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from ztunnel.errors import ConnectionFailed, Denied, NoDestination, Overflow, Unreachable
from ztunnel.flow.flow import Counts
from ztunnel.hbone.request import render_baggage, render_response
from ztunnel.hbone.terminate import TerminatedTunnel
from ztunnel.model.address import IPAddress
from ztunnel.telemetry.metrics import Live
from ztunnel.waypoint.chain import Chain
from ztunnel.waypoint.detection import Detector
from ztunnel.waypoint.reporting.report import Reports
from ztunnel.waypoint.tcp import Passage
from ztunnel.waypoint.upstream.call import Call
from ztunnel.waypoint.upstream.connect import Servers
from ztunnel.waypoint.upstream.find import Here
from ztunnel.waypoint.upstream.spot import Cancellable, Stream, Target

_OK, _DENIED, _UNAVAILABLE = 200, 401, 503


class Forwarding:
    """One connection. It is reported when it is over."""

    def __init__(
        self,
        tunnel: TerminatedTunnel,
        detector: Detector | None,
        reports: Reports,
        began: float,
        on_end: Callable[[], None],
    ) -> None:
        """`detector` has the first bytes of a tunnel that was accepted already; None: it is accepted when a
        server stands. `began`: monotonic seconds. `on_end` is called when it is over."""
        self._tunnel = tunnel
        self._detector = detector
        self._reports = reports
        self._began = began
        self._on_end = on_end
        self._here: Here | None = None
        self._counts = Counts()
        self._live: Live | None = None
        self._call: Call | None = None
        self._calling: Cancellable | None = None
        self._passage: Passage | None = None
        self._host = ""
        self._is_over = False

    @property
    def goes_on(self) -> bool:
        """Whether there is something that may have to end."""
        return self._calling is not None or self._passage is not None

    def wait(self, what: Cancellable) -> None:
        """It waits for this before it is started."""
        self._calling = what

    def look(self) -> None:
        """Time has passed: nothing is waited for in the name of a client that has gone."""
        if self._calling is not None and self._tunnel.closed:
            self.end(Unreachable("the client has gone"))

    def start(self, servers: Servers, here: Here, chain: Chain, caller: IPAddress) -> None:
        """Connect a server, and join it."""
        self._here, self._calling = here, None
        try:
            call = self._call = servers.pick(chain, caller)
        except (NoDestination, Overflow) as error:
            self.refuse(error)
            return
        self._host = call.host
        calling = call.start(partial(self._stands, call.target), self.refuse)
        if self._passage is None and not self._is_over:
            self._calling = calling

    def _stands(self, target: Target, server: Stream) -> None:
        self._calling = None
        client, here = self._tunnel, self._here.workload if self._here is not None else None
        self._counts = client.counts
        self._live = self._reports.opened(target.destination, self._counts)
        passage = self._passage = Passage(client, server, self._ended)
        if self._call is not None:
            self._call.watch(passage)
        if self._detector is None:
            client.accept(render_response(_OK, render_baggage(here) if here else ""), passage.client)
        else:
            self._detector.attach(passage.client)
        server.attach(passage.server)

    def end(self, error: ConnectionFailed) -> None:
        """It may not go on."""
        calling, passage = self._calling, self._passage
        if calling is not None:
            calling.cancel()
            self.refuse(error)
        elif passage is not None:
            passage.abort(error)

    def refuse(self, error: ConnectionFailed) -> None:
        """There is no server for it."""
        self._calling = None
        if self._detector is None:
            status = _DENIED if isinstance(error, Denied) else _UNAVAILABLE
            self._tunnel.refuse(render_response(status))
        else:
            self._tunnel.abort(error)
        self._ended(error)

    def _ended(self, error: ConnectionFailed | None) -> None:
        self._is_over, self._calling, self._passage = True, None, None
        if self._call is not None:
            self._call.end()
        self._on_end()
        self._reports.closed(self._live, self._counts, self._began, self._host, error)
