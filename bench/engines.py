"""What a second engine for each node would give at most: two pairs of node proxies in the place of one.

Two clients call a server each, either all four beside one pair of proxies, or each two beside a pair of their
own. The second pair is whole and shares nothing with the first: several workers of one proxy would have to.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.cells import OURS, Cell, Load, Route
from bench.contestants import Contestant, Way, called_itself
from bench.figures import Result, Sample, parse_wrk
from bench.measure import run_in, warm_up, wrk_command
from bench.others import watch_beside
from bench.pair import NodeProxies, cpu_seconds
from bench.plan import Plan
from bench.turns import take_turns
from ztunnel.demo.operate import Laboratory

SPACE = "engines"
PLACES = {"beside": ("node-1", "node-2"), "second": ("node-1", "node-2"), "apart": ("node-3", "node-4")}
"""Of each client, and of the server that it calls."""

_NGINX = Path(__file__).with_name("nginx.conf")
_HEAD = (
    f"{{apiVersion: v1, kind: Namespace, "
    f"metadata: {{name: {SPACE}, labels: {{istio.io/dataplane-mode: ambient}}}}}}"
)
_POD = (
    "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: {space}}}, spec: {{nodeName: {node}, "
    "containers: [{{name: {name}, image: bench, ports: [{{containerPort: 80}}], command: [{command}]}}]}}}}"
)


@dataclass(frozen=True, slots=True)
class Engines:
    """So many for each node, and the two ways of the load between these nodes."""

    name: str
    ways: tuple[Way, Way]
    nodes: tuple[tuple[str, str], ...]


def manifests(directory: Path) -> str:
    """Three clients and their servers; these write below `directory`."""
    objects = [_HEAD]
    for name, (near, far) in PLACES.items():
        place = directory / name
        serve = f"mkdir {place} && cd {place} && exec nginx -p . -e stderr -c {_NGINX}"
        objects.append(_POD.format(name=f"client-{name}", space=SPACE, node=near, command="sleep, infinity"))
        objects.append(
            _POD.format(name=f"server-{name}", space=SPACE, node=far, command=f'sh, -c, "{serve}"')
        )
    return "\n---\n".join(objects)


def one_and_two(addresses: Mapping[str, str]) -> tuple[Engines, Engines]:
    """Given the address of each pod."""
    beside, second, apart = (
        called_itself(f"{SPACE}/client-{name}", f"{SPACE}/server-{name}", addresses, True) for name in PLACES
    )
    first = PLACES["beside"]
    return Engines("one", (beside, second), (first,)), Engines(
        "two", (beside, apart), (first, PLACES["apart"])
    )


def measure_engines(cell: Cell, plan: Plan) -> Result:
    """The row of the benchmark: figures of two, divided by those of one of the same round."""
    with brought_up(f"engines{os.getpid()}") as (laboratory, contestants):

        def sample(engines: Engines, cell: Cell) -> Sample:
            return drive(laboratory, engines, cell, plan.seconds)

        watch = watch_beside(laboratory.names.cgroup, plan.patience_seconds)
        [found] = take_turns([(cell, contestants)], plan.rounds, sample, watch, plan.repeats)
    return of_one(found)


def of_one(result: Result) -> Result:
    """Of samples of `one` and `two` the ratios."""
    rounds = zip(result.samples["one"], result.samples["two"], strict=True)
    ratios = [tuple(more / less for less, more in zip(one, two, strict=True)) for one, two in rounds]
    return replace(result, samples={OURS: ratios})


def drive(laboratory: Laboratory, engines: Engines, cell: Cell, seconds: int) -> Sample:
    """Requests a second, of both clients together, and seconds of CPU of the proxies for each. Raises
    Unmeasured."""
    half = Cell(Route.TWO_NODES, Load.REQUESTS, cell.parallel // 2)

    def rate(way: Way) -> float:
        return parse_wrk(half, run_in(laboratory, way.client, wrk_command(way, half, seconds), seconds))[0]

    pids: Sequence[int] = [
        pid for ends in engines.nodes for end in NodeProxies(laboratory, ends).pids() for pid in end
    ]
    before = cpu_seconds(pids)
    with ThreadPoolExecutor(len(engines.ways)) as pool:
        requests = sum(pool.map(rate, engines.ways))
    return requests, (cpu_seconds(pids) - before) / (requests * seconds)


@contextmanager
def brought_up(name: str) -> Iterator[tuple[Laboratory, tuple[Engines, Engines]]]:
    """Four nodes, in a laboratory of their own; all calls go through tunnels. Raises Unmeasured."""
    with TemporaryDirectory(prefix="ztunnel-bench-") as directory, Laboratory(name) as laboratory:
        Path(directory).chmod(0o755)  # nginx gives up root
        cluster = laboratory.up(manifests(Path(directory)), network=True)
        addresses = {pod.full_name: str(pod.address(IPv4Address)) for pod in cluster.pods}
        contestants = one_and_two(addresses)
        for way in dict.fromkeys(way for engines in contestants for way in engines.ways):
            warm_up(laboratory, Contestant(OURS, {Route.TWO_NODES: way}), Route.TWO_NODES)
        yield laboratory, contestants
