"""python -m bench.ports: many new connections a second from one pod, and what an unrelated pair feels.

Both ends at default sysctls, the client closing first: ports wait for a minute until they are used
again. `--seconds 120` is the full time, in which every port comes round. What is measured is what the
pair feels of the mesh, not of the load's own programs on the same cores: these stand back (SCHED_IDLE).
The pair's p99 is the median of those of windows of 10 s, and the same load without a mesh comes first,
for comparison.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address
from statistics import median

from bench.cells import OURS, Cell
from bench.figures import Result
from ztunnel.demo import run
from ztunnel.demo.operate import Laboratory

RATE = 1000.0
QUIET_RATE, QUIET_SECONDS, WINDOW_SECONDS = 100.0, 30.0, 10.0
PLAIN_SECONDS = 20.0
"""How long the load lasts without a mesh, at most."""
PEERS = (1, 20)
GOAL = 2.0
"""The unrelated pair's p99 under load, divided by its quiet one, is at most this."""

_PORT = "8080"
_MOST_LINES = 10
_GRACE_SECONDS = 60.0
_POD = (
    "{{apiVersion: v1, kind: Pod, metadata: {{name: {}, namespace: ports, labels: {{app: {}}}}}, "
    "spec: {{nodeName: {}}}}}"
)


def manifests() -> str:
    """A client and a quiet one on the first node; those that they call on the second."""
    head = (
        "{apiVersion: v1, kind: Node, metadata: {name: node-1}}\n---\n"
        "{apiVersion: v1, kind: Node, metadata: {name: node-2}}\n---\n"
        "{apiVersion: v1, kind: Namespace, "
        "metadata: {name: ports, labels: {istio.io/dataplane-mode: ambient}}}"
    )
    pods = [("client", "node-1"), ("quiet", "node-1"), ("called", "node-2")]
    pods += [(f"peer-{number}", "node-2") for number in range(max(PEERS))]
    return "\n---\n".join([head, *(_POD.format(name, name, node) for name, node in pods)])


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that this share of them does not exceed; 0 of none."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else 0.0


def usual_p99(values: Sequence[float], rate: float) -> float:
    """The median of the p99 of windows of 10 s of calls that were made one after the other at `rate`; what is
    left of a last window is in none, if there is a whole one."""
    size = max(int(rate * WINDOW_SECONDS), 1)
    starts = range(0, max(len(values) - size, 0) + 1, size)
    return median(percentile(values[start : start + size], 0.99) for start in starts)


class Pods:
    """Clients in the pods of a laboratory."""

    def __init__(self, laboratory: Laboratory, addresses: dict[str, str]) -> None:
        self._laboratory = laboratory
        self._addresses = addresses

    def run(
        self, pod: str, seconds: float, words: Sequence[str], called: Sequence[str]
    ) -> tuple[list[float], int]:
        """Seconds of each call that was answered, and how many were not."""
        hosts = [self._addresses[f"ports/{each}"] for each in called]
        command = [sys.executable, "-m", "bench.caller", *words, _PORT, *hosts]
        done = self._laboratory.exec(f"ports/{pod}", command, timeout=seconds + _GRACE_SECONDS)
        if done.returncode:
            raise RuntimeError(f"{pod}: {done.stdout}{done.stderr}")
        found = json.loads(done.stdout)
        if found["failed"]:
            print(f"  {pod}: {found['failed']}", file=sys.stderr)
        return found["seconds"], sum(found["failed"].values())

    def quiet(self, seconds: float) -> float:
        """The unrelated pair's usual p99 over so many seconds."""
        words = ["--stay", str(QUIET_RATE), str(seconds)]
        return usual_p99(self.run("quiet", seconds, words, ["called"])[0], QUIET_RATE)

    def load(self, peers: int, rate: float, seconds: float) -> tuple[list[float], int]:
        """New connections to so many peers."""
        names = [f"peer-{number}" for number in range(peers)]
        for name in names:
            self._stand_back(f"ports/{name}")
        answered, failed = self.run("client", seconds, [str(rate), str(seconds)], names)
        if failed:
            self._say_why()
        return answered, failed

    def _say_why(self) -> None:
        """What the node proxies have logged of connections that failed."""
        for node in ("node-1", "node-2"):
            lines = self._laboratory.node_log(node).splitlines()
            for line in [each for each in lines if " error=" in each][-_MOST_LINES:]:
                print(f"  {node}: {line}", file=sys.stderr)

    def _stand_back(self, pod: str) -> None:
        """Let the processes of a pod run when nothing else does."""
        found = self._laboratory.pod(pod)
        for pid in run.processes(self._laboratory.names.pod_cgroup(found.node.name, found.uid)):
            os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0))


@dataclass(frozen=True, slots=True)
class Felt:
    """What became of the load, and the unrelated pair's usual p99 before and meanwhile, in seconds."""

    answered: Sequence[float]
    failed: int
    quiet: float
    loaded: float

    @property
    def ratio(self) -> float:
        """How much worse the pair fares."""
        return self.loaded / self.quiet


def feel(pods: Pods, peers: int, rate: float, seconds: float) -> Felt:
    """The pair alone, then beside the load."""
    quiet = pods.quiet(min(QUIET_SECONDS, seconds))
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(pods.load, peers, rate, seconds)
        loaded = pods.quiet(max(seconds - 1, 1))
        answered, failed = loading.result()
    return Felt(answered, failed, quiet, loaded)


def measure(pods: Pods, peers: int, rate: float, seconds: float) -> bool:
    """Print one line; whether the goal is reached and every call was answered."""
    felt = feel(pods, peers, rate, seconds)
    p50, p99 = (percentile(felt.answered, share) * 1e3 for share in (0.5, 0.99))
    print(
        f"  {rate:.0f} new connections/s to {peers:2} for {seconds:.0f} s: {len(felt.answered)} answered, "
        f"{felt.failed} not, p50 {p50:.1f} ms, p99 {p99:.1f} ms; an unrelated pair's p99 "
        f"{felt.quiet * 1e3:.2f} -> {felt.loaded * 1e3:.2f} ms: {felt.ratio:.1f} of quiet (goal {GOAL})",
        flush=True,
    )
    return not felt.failed and felt.ratio <= GOAL


def measure_sustained(cell: Cell, seconds: float) -> Result:
    """The row of the benchmark: from one pod to one, for so long."""
    print(f"{cell.section}: {cell.name} ...", file=sys.stderr)
    with brought_up("ports", plain=False) as pods:
        felt = feel(pods, 1, float(cell.parallel), seconds)
    failure = (
        f"{felt.failed} of {felt.failed + len(felt.answered)} calls were not answered" if felt.failed else ""
    )
    return Result(cell, {OURS: [] if failure else [(felt.ratio,)]}, failure=failure)


@contextmanager
def brought_up(name: str, plain: bool) -> Iterator[Pods]:
    """The pods, in a laboratory of their own."""
    with Laboratory(f"{name}{os.getpid()}") as laboratory:
        cluster = laboratory.up(manifests(), start_nodes=not plain)
        yield Pods(laboratory, {pod.full_name: str(pod.address(IPv4Address)) for pod in cluster.pods})


def main() -> int:
    """Exit status 1 if a call was not answered, or the goal is missed."""
    parser = argparse.ArgumentParser(prog="bench.ports", description=__doc__)
    parser.add_argument(
        "--seconds", type=float, default=10.0, help="how long the load lasts (120: the full time)"
    )
    parser.add_argument("--rate", type=float, default=RATE, help="new connections a second")
    options = parser.parse_args()
    print("without a mesh", flush=True)
    with brought_up("plain", plain=True) as pods:
        for peers in PEERS:
            measure(pods, peers, options.rate, min(options.seconds, PLAIN_SECONDS))
    print("in the mesh", flush=True)
    with brought_up("ports", plain=False) as pods:
        reached = [measure(pods, peers, options.rate, options.seconds) for peers in PEERS]
    return 0 if all(reached) else 1


if __name__ == "__main__":
    sys.exit(main())
