"""How fast the mesh is, beside the same pods without it: alternating, so that both see the same machine."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from ztunnel.demo.claims.claim import Claim, Findings
from ztunnel.demo.claims.pace import Pace, median_pace, micros, parse_wrk, thousands
from ztunnel.demo.claims.stage import FAR, LABEL, NEAR, Stage
from ztunnel.demo.failure import LaboratoryFailed
from ztunnel.model.address import Endpoint

_CONNECTIONS = 8
_SECONDS = 0.6
_RUNS = {NEAR: 3, FAR: 1}
_BULK_BYTES = 64 << 20
_FLOOR = 0.9
_PORT = 80
_CONFIGURATION = Path(__file__).with_name("nginx.conf")
_PLACES = {NEAR: "same node", FAR: "across nodes"}
_MODES = {"meshed": "ambient", "unmeshed": "none"}


def _manifests(directory: Path) -> str:
    """A client and two servers, once in the mesh and once not."""
    documents = [
        f"{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}, labels: {{{LABEL}: {mode}}}}}}}"
        for name, mode in _MODES.items()
    ]
    for name in _MODES:
        for pod, node in (("client", NEAR), *((node, node) for node in _PLACES)):
            own = directory / f"{name}-{pod}"
            serve = f"mkdir {own} && cd {own} && truncate -s {_BULK_BYTES} bulk && exec nginx -p . -e stderr -c {_CONFIGURATION}"
            command = ["sleep", "infinity"] if pod == "client" else ["sh", "-c", serve]
            documents.append(
                f"{{apiVersion: v1, kind: Pod, metadata: {{name: {pod}, namespace: {name}}}, spec: {{nodeName: {node}, "
                f"containers: [{{name: main, image: none, command: {command}}}]}}}}"
            )
    return "\n---\n".join(documents)


@dataclass(frozen=True, slots=True)
class _Way:
    """From a client to a server, in the mesh or not."""

    stage: Stage
    client: str
    to: Endpoint

    def fetch(self) -> float:
        """Bytes a second of one download. Raises LaboratoryFailed."""
        command = ["curl", "-sf", "-o", "/dev/null", "-w", "%{speed_download}", f"http://{self.to}/bulk"]
        ended = self.stage.laboratory.exec(self.client, command, timeout=10.0)
        if ended.returncode:
            raise LaboratoryFailed(f"{self.client} cannot fetch from {self.to}: {ended.stderr.strip()}")
        return float(ended.stdout)

    def load(self, seconds: float) -> Pace:
        """Requests as fast as they are answered, for so long. Raises LaboratoryFailed."""
        command = ["wrk", "-t1", f"-c{_CONNECTIONS}", "-d60s", "--latency", f"http://{self.to}/"]
        pipe = subprocess.PIPE
        running = self.stage.laboratory.popen(self.client, command, stdout=pipe, stderr=pipe, text=True)
        try:
            time.sleep(seconds)
            running.send_signal(signal.SIGINT)
            text, error = running.communicate(timeout=5.0)
        finally:
            running.kill()
            running.wait()
        return parse_wrk(text + error)


def _measure(stage: Stage, findings: Findings) -> None:
    with _servers(stage) as ways:
        for node, place in _PLACES.items():
            meshed, plain = ways["meshed", node], ways["unmeshed", node]
            pairs = [(meshed.load(_SECONDS), plain.load(_SECONDS)) for _ in range(_RUNS[node])]
            with_it, without = (median_pace(paces) for paces in zip(*pairs, strict=True))
            ratio = median(pair[0].rate / pair[1].rate for pair in pairs)
            text = (
                f"{place}: {thousands(with_it.rate)} requests/s with the mesh, {thousands(without.rate)} without: "
                f"{ratio:.2f}; p50 {micros(with_it.p50_seconds)}, {micros(without.p50_seconds)}"
            )
            findings.note(text, ratio >= _FLOOR or node != NEAR)
            bulk = meshed.fetch() / 1e9, plain.fetch() / 1e9
            findings.note(f"{place}, bulk: {bulk[0]:.2f} GB/s, {bulk[1]:.2f}: {bulk[0] / bulk[1]:.2f}")


@contextmanager
def _servers(stage: Stage) -> Iterator[dict[tuple[str, str], _Way]]:
    """The ways by namespace and server's node, each warm: what the kernel can carry it carries."""
    laboratory = stage.laboratory
    directory = laboratory.names.directory / "speed"
    directory.mkdir()
    text = _manifests(directory)
    try:
        laboratory.apply(text)
        ways = {}
        for name in _MODES:
            for node in _PLACES:
                to = Endpoint(laboratory.pod(f"{name}/{node}").addresses[0], _PORT)
                ways[name, node] = _Way(stage, f"{name}/client", to)
        stage.until("the servers answer", lambda: all(map(_answers, ways.values())))
        yield ways
    finally:
        laboratory.apply(text, delete=True)


def _answers(way: _Way) -> bool:
    command = ["curl", "-sf", "-o", "/dev/null", f"http://{way.to}/"]
    return way.stage.laboratory.exec(way.client, command, timeout=5.0).returncode == 0


CLAIM = Claim(
    10,
    "Same node, a mesh costs at most a tenth",
    f"wrk with {_CONNECTIONS} connections and curl against nginx, in turn in the mesh and without one",
    _measure,
)
