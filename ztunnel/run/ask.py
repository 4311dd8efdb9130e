"""Asks the control plane for addresses as they are met, over the stream of the moment."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import trio

from ztunnel.telemetry.figures import Figures
from ztunnel.xds.on_demand import OnDemand
from ztunnel.xds.pb import discovery_pb2

Requests = trio.MemorySendChannel[discovery_pb2.DeltaDiscoveryRequest]


async def ask_on_demand(on_demand: OnDemand, requests: Callable[[], Requests | None]) -> None:
    """Until cancelled. A stream that ends takes what was asked with it: the next one begins with all that."""
    asked = trio.Event()

    def wake() -> None:
        asked.set()

    on_demand.wake = wake
    while True:
        await asked.wait()
        asked = trio.Event()
        request, stream = on_demand.take(), requests()
        if request is not None and stream is not None:
            with suppress(trio.ClosedResourceError, trio.BrokenResourceError):
                await stream.send(request)


def register_on_demand(figures: Figures, on_demand: OnDemand) -> None:
    """Its metrics."""
    figures.gauge(
        "ztunnel_on_demand_addresses",
        "Addresses beside what is served that the control plane is asked to keep current",
        lambda: len(on_demand),
    )
    figures.counter(
        "ztunnel_on_demand_unanswered_total",
        "Addresses that were met, and which were not answered in time",
        lambda: on_demand.unanswered,
    )
