"""python -m bench.control: what a change costs the control plane, and how soon every node has taken it.

`ztunnel control` reads a cluster of 5,000 pods, 500 services and 300 policies in 50 namespaces from an API
server in memory and serves it to 50 subscribers over TLS, while twenty objects a second change. A push is
timed from the event's way out of the API server to the subscriber's acknowledgement.

With `--waypoints` each namespace has a waypoint as well, and each service a route, a rule and a policy of it.
What one of the waypoints holds is looked at by itself (`bench.follower`), also where it is sent the whole
mesh.
"""

from __future__ import annotations

import argparse
import base64
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random

import trio

from bench.control_api import ApiServer
from bench.control_process import GRACE_SECONDS, control_plane, ready, used
from bench.control_world import NAMESPACES, POLICIES, Pod, pod_value, pods, policy_value, slice_value, world
from bench.follower import metadata_of, unchecked
from bench.ports import percentile
from bench.waypoint_world import NAME, namespace_labels, waypoint_objects
from ztunnel.control.answer import PATH
from ztunnel.control.source.served import SERVED
from ztunnel.rpc.call import open_channel
from ztunnel.xds.pb import discovery_pb2
from ztunnel.xds.resource import NODE_TYPES, TYPES, WAYPOINT_TYPES
from ztunnel.xds.subscriber import describe_node

SUBSCRIBERS = 50
CHANGES = 20
"""A second."""
P99_SECONDS, RSS_MIB, CORES = 1.0, 300.0, 0.5
"""What has to be kept."""

_CLAIMS = base64.urlsafe_b64encode(b'{"aud":["istio-ca"],"exp":4000000000}').decode().rstrip("=")
TOKEN = f"e30.{_CLAIMS}.c2lnbmF0dXJl"
"""As Kubernetes' tokens look; the API server says that it is good."""


@dataclass(slots=True)
class Pushes:
    """Changes under way, by the resource's name, and what each took at each subscriber."""

    begun: dict[str, float] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    subscribed: int = 0

    def acknowledged(self, names: list[str], now: float) -> None:
        """A subscriber has taken these."""
        self.seconds += [now - self.begun[name] for name in names if name in self.begun]


async def subscribe(port: int, pushes: Pushes, waypoint: int | None = None, whole: bool = False) -> None:
    """One node, or the waypoint of that namespace: everything, acknowledged at once. `whole`: the waypoint
    does not say that it is one."""
    types = NODE_TYPES if waypoint is None else TYPES if whole else WAYPOINT_TYPES
    said = {} if waypoint is None or whole else metadata_of(f"ns-{waypoint}", f"{NAME}-0")
    waiting = set(types)
    async with (
        open_channel("127.0.0.1", port, unchecked) as channel,
        channel.stream(PATH, {"authorization": f"Bearer {TOKEN}"}) as call,
    ):
        for type_url in types:
            request = discovery_pb2.DeltaDiscoveryRequest(type_url=type_url, node=describe_node("n", said))
            await call.send(request.SerializeToString())
        while (message := await call.receive()) is not None:
            response = discovery_pb2.DeltaDiscoveryResponse.FromString(message)
            answer = discovery_pb2.DeltaDiscoveryRequest(
                type_url=response.type_url, response_nonce=response.nonce
            )
            await call.send(answer.SerializeToString())
            pushes.acknowledged([one.name for one in response.resources], trio.current_time())
            if response.type_url in waiting:
                waiting.discard(response.type_url)
                pushes.subscribed += not waiting


async def change(api: ApiServer, pushes: Pushes, seconds: float) -> None:
    """Pods become ready and unready, with their slices; every tenth change is one of a policy."""
    rng, everyone, unready = Random(1), pods(), set[Pod]()
    end, number = trio.current_time() + seconds, 0
    due = trio.current_time()
    while due < end:
        await trio.sleep_until(due)
        number += 1
        due += 1 / CHANGES
        if number % 10 == 0:
            namespace, which = rng.randrange(NAMESPACES), rng.randrange(POLICIES)
            pushes.begun[f"ns-{namespace}/policy-{which}"] = trio.current_time()
            api.put("AuthorizationPolicy", policy_value(namespace, which, 10_000 + number))
            continue
        pod = rng.choice(everyone)
        unready ^= {pod}
        pushes.begun[pod.uid] = trio.current_time()
        api.put("Pod", pod_value(pod, ready=pod not in unready))
        api.put("EndpointSlice", slice_value(pod.namespace, pod.service, unready))


async def measure(seconds: float, waypoints: int, whole: bool) -> bool:
    """Run it and print what came of it; whether it keeps what has to be kept."""
    api, pushes = ApiServer({one.kind: one.candidates[0] for one in SERVED}), Pushes()
    for kind, value in (*world(namespace_labels()), *waypoint_objects()) if waypoints else world():
        api.put(kind, value)
    subscribers, followed = SUBSCRIBERS + waypoints, list[Followed]()
    with tempfile.TemporaryDirectory() as folder:
        async with api.served() as api_port, trio.open_nursery() as nursery:
            with control_plane(Path(folder), api_port) as process:
                begun = trio.current_time()
                port = await ready(nursery, process)
                loaded, alone = trio.current_time() - begun, used(process.pid)[1]
                for _ in range(SUBSCRIBERS):
                    nursery.start_soon(subscribe, port, pushes)
                await subscribed_all(pushes, SUBSCRIBERS)
                for number in range(waypoints):
                    nursery.start_soon(subscribe, port, pushes, number, whole)
                await subscribed_all(pushes, subscribers)
                subscribed = trio.current_time() - begun - loaded
                if waypoints:
                    followed = [await followed_by(port, nursery, whole=each) for each in (False, True)]
                before, at = used(process.pid)[0], trio.current_time()
                await change(api, pushes, seconds)
                await trio.sleep(1)
                after, memory = used(process.pid)
                took = trio.current_time() - at
                cores = (after - before) / took
                for one in followed:
                    print(one.text(took))
                nursery.cancel_scope.cancel()
    p50, p99 = percentile(pushes.seconds, 0.5), percentile(pushes.seconds, 0.99)
    expected = len(pushes.begun) * SUBSCRIBERS
    print(f"ready after {loaded:.1f} s; {subscribers} subscribers served after {subscribed:.1f} s")
    print(f"{len(pushes.begun)} resources changed, {len(pushes.seconds)} pushes acknowledged")
    print(f"push p50 {p50 * 1000:.0f} ms, p99 {p99 * 1000:.0f} ms (must: {P99_SECONDS * 1000:.0f} ms)")
    print(f"memory {memory:.0f} MiB (must: {RSS_MIB:.0f}), of it {alone:.0f} MiB before the first subscriber")
    print(f"{cores:.2f} cores (must: {CORES})")
    return len(pushes.seconds) >= expected and p99 < P99_SECONDS and memory < RSS_MIB and cores < CORES


async def subscribed_all(pushes: Pushes, count: int) -> None:
    """Wait until so many have all of it."""
    with trio.fail_after(GRACE_SECONDS):
        while pushes.subscribed < count:  # noqa: ASYNC110
            await trio.sleep(0.1)


@dataclass(frozen=True, slots=True)
class Followed:
    """A process that holds a waypoint's world: what it took, in MiB, and the CPU until changes began."""

    pid: int
    whole: bool
    held: float
    before: float

    def text(self, seconds: float) -> str:
        """What it costs, after changes of so long."""
        cores, memory = (used(self.pid)[0] - self.before) / seconds, used(self.pid)[1]
        sent = "the whole mesh" if self.whole else "what it serves"
        return f"a waypoint that is sent {sent}: {self.held:.1f} MiB, {memory:.0f} in all; {cores:.3f} cores"


async def followed_by(port: int, nursery: trio.Nursery, *, whole: bool) -> Followed:
    """Start one, and wait until it holds its world."""
    command = [sys.executable, "-m", "bench.follower", str(port), "ns-0", f"{NAME}-0"]
    command += ["--whole"] if whole else []
    start = partial(
        trio.run_process, command, stdout=subprocess.PIPE, env={**os.environ, "TOKEN": TOKEN}, check=False
    )
    process = await nursery.start(start)
    with trio.fail_after(GRACE_SECONDS):
        held = float(await process.stdout.receive_some())
    await trio.sleep(1)
    return Followed(process.pid, whole, held, used(process.pid)[0])


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--waypoints", type=int, default=0, help=f"up to {NAMESPACES}")
    parser.add_argument("--whole", action="store_true", help="they are sent the whole mesh")
    said = parser.parse_args()
    return 0 if trio.run(measure, said.seconds, said.waypoints, said.whole) else 1


if __name__ == "__main__":
    sys.exit(main())
