"""A control plane for one node proxy: the objects of a laboratory, and a large world beside them.

python -m bench.large.serve MANIFESTS WORKLOADS LATE DIRECTORY ADDRESS

LATE are the uids of workloads that are kept back, with commas. The root of its certificate stands in
DIRECTORY. It says `{"port": ...}`, then does what it reads from standard input, a line each, and answers each
with a line of JSON:

    deltas COUNT             one workload after the other is another one: seconds until each is acknowledged
    changes RATE SECONDS     the same at a steady rate, whatever is acknowledged
    late                     the next one that was kept back: when it was sent (time.time), and how many
                             seconds later it was acknowledged
"""

from __future__ import annotations

import json
import ssl
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from pathlib import Path
from random import Random

import trio

from bench.large.resources import workload, world
from ztunnel.control.answer import PATH
from ztunnel.control.settings import MeshSettings
from ztunnel.control.source.watch import FolderWatch
from ztunnel.identity.serving import make_serving
from ztunnel.identity.sign import open_authority
from ztunnel.model.workload import Workload
from ztunnel.rpc.answer import ServerCall
from ztunnel.rpc.serve import Server, Service
from ztunnel.xds.encoding import encode
from ztunnel.xds.pb.discovery_pb2 import DeltaDiscoveryRequest
from ztunnel.xds.publisher import Publisher, Response
from ztunnel.xds.resource import ADDRESS, Resource, name_of, parse, type_of
from ztunnel.xds.snapshot import Snapshot, advance

_REQUEST_BYTES = 16 << 20
_SECONDS = 60.0
ROOT = "root-cert.pem"


class Plane:
    """What is served, to whoever subscribes; one at a time is measured."""

    def __init__(self, snapshot: Snapshot, late: Sequence[Workload], workloads: int) -> None:
        """Each of `late` comes when it is called for."""
        self._snapshot = snapshot
        self._late = deque(late)
        self._workloads = workloads
        self._publisher: Publisher | None = None
        self._call: ServerCall | None = None
        self._answered = trio.lowlevel.ParkingLot()
        self._numbers = count(1)

    async def stream(self, call: ServerCall) -> None:
        """Serve until the subscriber leaves."""
        call.take_messages_of(_REQUEST_BYTES)
        self._publisher, self._call = Publisher(self._snapshot), call
        while (message := await call.receive()) is not None:
            responses = self._publisher.receive(DeltaDiscoveryRequest.FromString(message))
            self._answered.unpark_all()
            await self._send(responses)

    async def _send(self, responses: list[Response]) -> None:
        for response in responses:
            assert self._call is not None
            await self._call.send(b"".join(encode(response)))

    async def put(self, resource: Resource) -> float:
        """It is new, or another one; when that begins to be sent, as time.time() has it."""
        changes = {type_of(resource): {name_of(resource): resource}}
        self._snapshot = advance(self._snapshot, changes, "")
        responses = self._publisher.publish(self._snapshot) if self._publisher is not None else []
        begun = time.time()
        await self._send(responses)
        return begun

    async def settle(self) -> None:
        """Until all is acknowledged. Raises trio.TooSlowError."""
        with trio.fail_after(_SECONDS):
            while self._publisher is None or not self._publisher.settled:
                await self._answered.park()

    def _next(self) -> Workload:
        number = next(self._numbers)
        return workload(number * 7919 % self._workloads, healthy=number // self._workloads % 2 == 1)

    async def deltas(self, number: int) -> dict[str, object]:
        """One after the other."""
        seconds = []
        await self.settle()
        for _ in range(number):
            begun = await self.put(self._next())
            await self.settle()
            seconds.append(time.time() - begun)
        return {"seconds": seconds}

    async def changes(self, rate: float, seconds: float) -> dict[str, object]:
        """At a steady rate."""
        begun, number = trio.current_time(), int(rate * seconds)
        for each in range(number):
            await trio.sleep_until(begun + each / rate)
            await self.put(self._next())
        await self.settle()
        return {"changes": number}

    async def late(self) -> dict[str, object]:
        """Now it comes."""
        late = self._late.popleft()
        await self.settle()
        sent = await self.put(late)
        await self.settle()
        return {"sent": sent, "acknowledged": time.time() - sent}

    async def obey(self, line: str) -> dict[str, object]:
        """One line of standard input."""
        word, *numbers = line.split()
        if word == "deltas":
            return await self.deltas(int(numbers[0]))
        if word == "changes":
            return await self.changes(float(numbers[0]), float(numbers[1]))
        return await self.late()


async def read_folder(folder: Path) -> Snapshot:
    """What a folder of manifests means to node proxies."""
    found: list[Snapshot] = []
    watch = FolderWatch(folder, MeshSettings(), found.append)
    await watch.poll(patient=False)
    return found[-1]


def split(snapshot: Snapshot, late: Sequence[str]) -> tuple[Snapshot, list[Workload]]:
    """Without those workloads, and these. Raises KeyError: there is no such workload."""
    found = [parse(ADDRESS, snapshot.resources[ADDRESS][uid], "") for uid in late]
    less = advance(snapshot, {ADDRESS: dict.fromkeys(late)}, "")
    return less, [each for each in found if isinstance(each, Workload)]


def enlarge(snapshot: Snapshot, workloads: int) -> Snapshot:
    """With a large world beside it."""
    changes: dict[str, dict[str, Resource | None]] = {}
    for each in world(workloads):
        changes.setdefault(type_of(each), {})[name_of(each)] = each
    return advance(snapshot, changes, "")


def secured(directory: Path, address: str) -> ssl.SSLContext:
    """TLS for that address; the root is written into `directory`."""
    now = datetime.now(UTC)
    authority = open_authority(directory / "serving-ca", now)
    serving = make_serving(authority, [address], timedelta(days=1), now)
    (directory / ROOT).write_text(authority.roots_pem)
    file = directory / "serving.pem"
    file.write_text(serving.key_pem + serving.chain_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    context.set_alpn_protocols(["h2"])
    return context


@contextmanager
def _told() -> Iterator[None]:
    """A proxy may come and go; anything else ends this process."""
    yield


async def run(words: list[str]) -> None:
    """Until standard input ends."""
    folder, number, late, directory, address = words
    snapshot, kept = split(await read_folder(Path(folder)), late.split(","))
    plane = Plane(enlarge(snapshot, int(number)), kept, int(number))
    context = secured(Path(directory), address)
    service = Service(methods={PATH: plane.stream}, context=lambda: context, boundary=_told, rng=Random(1))
    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host=address)
        await nursery.start(partial(Server(service).run, [listener]))
        print(json.dumps({"port": listener.socket.getsockname()[1]}), flush=True)
        async for line in trio.wrap_file(sys.stdin):
            print(json.dumps(await plane.obey(line)), flush=True)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(run, sys.argv[1:])
