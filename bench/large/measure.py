"""Puts one node proxy of a laboratory into a large world, and looks at it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import datetime
from ipaddress import IPv4Address
from pathlib import Path
from statistics import median
from string import Template
from tempfile import TemporaryDirectory
from typing import Any

from bench.cells import OURS, Cell, Load
from bench.figures import Result, Sample, Unmeasured
from bench.idle import standing
from bench.pair import cpu_seconds, resident_bytes
from bench.plan import Plan, Sizes
from bench.ports import QUIET_RATE, usual_p99
from ztunnel.demo import control, run
from ztunnel.demo.allot import node_addresses
from ztunnel.demo.command import PROGRAM, in_node
from ztunnel.demo.operate import Laboratory
from ztunnel.demo.survey import proxy_state

HERE = Path(__file__).parent
NODE = "node-1"
LATE = [f"large/late-{number}" for number in range(5)]
CHANGES = 20.0
"""A second."""
DELTAS = 300
_PATIENCE_SECONDS = 120.0
_PAUSE_SECONDS = 0.02


class Plane:
    """`bench.large.serve`, beside a node proxy."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        """Waits until it serves. Raises Unmeasured."""
        self._process = process
        self.port = int(self._answer()["port"])

    def ask(self, *words: object) -> dict[str, Any]:
        """Have something done, and what came of it. Raises Unmeasured."""
        assert self._process.stdin is not None
        self._process.stdin.write(" ".join(map(str, words)) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise Unmeasured("the control plane of the large world has ended")
        answer: dict[str, Any] = json.loads(line)
        return answer


class Ground:
    """A laboratory whose first node is in a large world once `restart` was called."""

    def __init__(self, laboratory: Laboratory, directory: Path, plane: Plane) -> None:
        self.laboratory = laboratory
        self.plane = plane
        self._directory = directory
        self._proxies: list[subprocess.Popen[bytes]] = []
        self.addresses = {pod.full_name: str(pod.address(IPv4Address)) for pod in laboratory.cluster().pods}

    def restart(self) -> float:
        """Another proxy; the seconds until it is ready."""
        names, node = self.laboratory.names, self.laboratory.node(NODE)
        if self.pids():
            self.laboratory.kill_node(NODE)
        variables = control.node_variables(names, NODE, self.laboratory.cluster().nodes[0])
        variables["CA_ADDRESS"] = variables["XDS_ADDRESS"]
        variables["XDS_ADDRESS"] = f"https://{_address(self.laboratory)}:{self.plane.port}"
        variables["XDS_ROOT_CA"] = str(self._directory / "root-cert.pem")
        begun = time.monotonic()
        process = run.start_node(names, node, variables)
        self._proxies.append(process)
        while (state := proxy_state(names, node)) != "ready":
            if process.poll() is not None or time.monotonic() > begun + _PATIENCE_SECONDS:
                raise Unmeasured(f"a node proxy in a large world is not ready: {state}")
            time.sleep(_PAUSE_SECONDS)
        return time.monotonic() - begun

    def pids(self) -> Sequence[int]:
        """Of the proxy."""
        return run.processes(self.laboratory.names.proxy_cgroup(NODE))

    def close(self) -> None:
        """The proxy has ended."""
        if self.pids():
            self.laboratory.kill_node(NODE)
        for each in self._proxies:
            each.wait()


def _address(laboratory: Laboratory) -> str:
    return str(node_addresses(laboratory.node(NODE).number)[0])


@contextmanager
def ground(name: str, sizes: Sizes) -> Iterator[Ground]:
    """Everything, gone at the end."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="ztunnel-bench-")))
        directory.chmod(0o755)  # nginx gives up root
        laboratory = stack.enter_context(Laboratory(name))
        text = Template((HERE / "manifests.yaml").read_text())
        laboratory.up(text.substitute(directory=directory, bench=HERE.parent), network=True)
        laboratory.kill_node(NODE)
        late = ",".join(f"Kubernetes//Pod/{pod}" for pod in LATE)
        words = [
            str(laboratory.names.manifests),
            str(sizes.workloads),
            late,
            str(directory),
            _address(laboratory),
        ]
        command = [sys.executable, "-m", "bench.large.serve", *words]
        argv = in_node(laboratory.names, NODE, laboratory.names.node_cgroup(NODE), command)
        root = str(HERE.parent.parent)
        process = stack.enter_context(
            subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONPATH": root},
            )
        )
        stack.callback(process.kill)
        made = Ground(laboratory, directory, Plane(process))
        stack.callback(made.close)
        yield made


def measure_large(name: str, cells: Sequence[Cell], plan: Plan) -> list[Result]:
    """All that is measured in a large world."""
    results: list[Result] = []
    try:
        with ground(name, plan.sizes) as made:
            for cell in cells:
                print(f"{cell.section}: {cell.name} ...", file=sys.stderr)
                results.append(Result(cell, {OURS: _samples(made, cell, plan)}))
    except Unmeasured as error:
        results += [Result(cell, {OURS: []}, failure=str(error)) for cell in cells[len(results) :]]
    return results


def _samples(made: Ground, cell: Cell, plan: Plan) -> list[Sample]:
    if cell.load is Load.WORLD:
        seconds = decision(plan.sizes.workloads)
        return [world(made, seconds) for _ in range(plan.large_rounds)]
    if not made.pids():
        made.restart()
    if cell.load is Load.ENROLMENT:
        return [enrolment(made, pod) for pod in LATE]
    return [changes(made, plan.sizes)]


def world(made: Ground, decided: float) -> Sample:
    """Its memory, what a delta costs it, when that is acknowledged, a decision, and from start to ready."""
    ready = made.restart()
    made.plane.ask("deltas", 1)
    before = cpu_seconds(made.pids())
    deltas = made.plane.ask("deltas", DELTAS)["seconds"]
    cost = (cpu_seconds(made.pids()) - before) / DELTAS
    return float(resident_bytes(made.pids())), cost, median(deltas), decided, ready


def decision(workloads: int) -> float:
    """Seconds of one, by the code as it is shipped: the interpreter of ZTUNNEL_PROGRAM, with its packages."""
    given = os.environ.get(PROGRAM)
    interpreter = str(Path(given).absolute().with_name("python")) if given else sys.executable
    root = str(HERE.parent.parent)
    module = "runpy.run_module('bench.large.decide', None, '__main__')"
    code = f"import runpy, sys; sys.path.append({root!r}); {module}"
    ended = subprocess.run(
        [interpreter, "-P", "-c", code, str(workloads)],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
    )
    if ended.returncode:
        raise Unmeasured(f"bench.large.decide: {ended.stderr.strip()}")
    return float(json.loads(ended.stdout)["seconds"])


def enrolment(made: Ground, pod: str) -> Sample:
    """From the moment when the control plane sends a pod to that when it is enrolled, as the log has it."""
    log = made.laboratory.names.node_directory(NODE) / "log"
    seen = len(log.read_text(errors="replace"))  # the proxies before have enrolled it, too
    sent = float(made.plane.ask("late")["sent"])
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while (enrolled := enrolled_at(log.read_text(errors="replace")[seen:], pod)) is None:
        if time.monotonic() > deadline:
            raise Unmeasured(f"{pod} is not enrolled")
        time.sleep(_PAUSE_SECONDS)
    return (enrolled - sent,)


def enrolled_at(log: str, pod: str) -> float | None:
    """When a pod was enrolled, by the line of a log, in seconds since the epoch."""
    for line in log.splitlines():
        if "pod enrolled" in line and f'pod="{pod}"' in line:
            return datetime.fromisoformat(line.split()[0]).timestamp()
    return None


def changes(made: Ground, sizes: Sizes) -> Sample:
    """The p99 of a pair beside flows that live, while the world changes, of the one without changes; and the
    processor time of the proxy meanwhile."""
    far = made.addresses["large/far"]
    with standing(made.laboratory, "large/client", (far, 80), sizes.flows):
        quiet = _pair(made, sizes.seconds)
        before, begun = cpu_seconds(made.pids()), time.monotonic()
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(made.plane.ask, "changes", CHANGES, sizes.seconds)
            loaded = _pair(made, sizes.seconds)
            asked.result()
        cores = (cpu_seconds(made.pids()) - before) / (time.monotonic() - begun)
    return loaded / quiet, cores


def _pair(made: Ground, seconds: float) -> float:
    command = [sys.executable, "-m", "bench.caller", "--stay", str(QUIET_RATE), str(seconds), "8080"]
    command.append(made.addresses["large/called"])
    done = made.laboratory.exec("large/quiet", command, timeout=seconds + _PATIENCE_SECONDS)
    if done.returncode:
        raise Unmeasured(f"a pair beside: {done.stdout}{done.stderr}")
    return usual_p99(json.loads(done.stdout)["seconds"], QUIET_RATE)
