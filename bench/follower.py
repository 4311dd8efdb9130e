"""python -m bench.follower PORT NAMESPACE NAME: holds the world of a waypoint as the waypoint itself does.

It prints a line when it has all of it, with the MiB that it took; its CPU and memory are looked at from
outside, until it is ended. With `--whole` it is sent what everybody is sent."""

from __future__ import annotations

import argparse
import os
import ssl
import sys
from contextlib import suppress
from pathlib import Path

import trio

from ztunnel.control.answer import PATH
from ztunnel.rpc.call import Call, open_channel
from ztunnel.rpc.status import RpcError
from ztunnel.state.hold import Hold
from ztunnel.state.subscribe import subscribe
from ztunnel.state.world import World
from ztunnel.xds.pb import discovery_pb2
from ztunnel.xds.resource import TYPES, WAYPOINT_TYPES
from ztunnel.xds.subscriber import ROLE, WAYPOINT, Subscriber, Update, describe_node

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def unchecked() -> ssl.SSLContext:
    """TLS with whoever answers."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    return context


def metadata_of(namespace: str, name: str) -> dict[str, str]:
    """What the waypoint of that pod says of itself."""
    return {"NAME": name, "NAMESPACE": namespace, "CLUSTER_ID": "Kubernetes", ROLE: WAYPOINT}


def memory() -> float:
    """MiB that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES / 2**20


async def follow(port: int, token: str, subscriber: Subscriber) -> None:
    """Hold the world until cancelled."""
    hold, before, told = Hold(World("")), memory(), False

    def observe(_update: Update) -> None:
        nonlocal told
        if subscriber.complete and not told:
            told = True
            print(f"{memory() - before:.1f}", flush=True)

    async with (
        open_channel("127.0.0.1", port, unchecked) as channel,
        channel.stream(PATH, {"authorization": f"Bearer {token}"}) as call,
        trio.open_nursery() as nursery,
    ):
        requests, outgoing = trio.open_memory_channel[discovery_pb2.DeltaDiscoveryRequest](4)
        incoming, responses = trio.open_memory_channel[discovery_pb2.DeltaDiscoveryResponse](0)
        nursery.start_soon(_send, call, outgoing)
        nursery.start_soon(_receive, call, incoming)
        await subscribe(requests, responses, hold, subscriber, observe)


async def _send(call: Call, requests: trio.MemoryReceiveChannel[discovery_pb2.DeltaDiscoveryRequest]) -> None:
    async for request in requests:
        await call.send(request.SerializeToString())


async def _receive(
    call: Call, responses: trio.MemorySendChannel[discovery_pb2.DeltaDiscoveryResponse]
) -> None:
    with responses:
        while (message := await call.receive()) is not None:
            await responses.send(discovery_pb2.DeltaDiscoveryResponse.FromString(message))


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("namespace")
    parser.add_argument("name")
    parser.add_argument("--whole", action="store_true")
    said = parser.parse_args()
    metadata = {} if said.whole else metadata_of(said.namespace, said.name)
    types = TYPES if said.whole else WAYPOINT_TYPES
    with suppress(RpcError):  # the control plane has ended
        trio.run(follow, said.port, os.environ["TOKEN"], Subscriber(describe_node("n", metadata), "", types))
    return 0


if __name__ == "__main__":
    sys.exit(main())
