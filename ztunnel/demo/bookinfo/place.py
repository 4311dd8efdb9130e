"""Bookinfo in a laboratory, as the steps of the walk use it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from ztunnel.demo.attached import is_attached
from ztunnel.demo.bookinfo.visit import Visit, parse
from ztunnel.demo.call import get
from ztunnel.demo.cluster import Pod
from ztunnel.demo.command import is_waypoint, module_command
from ztunnel.demo.failure import LaboratoryFailed
from ztunnel.demo.load import load
from ztunnel.demo.manifest import Manifest
from ztunnel.demo.operate import Laboratory
from ztunnel.demo.samples import Samples, parse_samples

NAMESPACE = "bookinfo"
WAYPOINT = "waypoint"
SERVICES = {"productpage", "details", "reviews", "ratings"}
PAGE = "/productpage"
CLIENT = "deployment/client"
BASE = ("networking/destination-rule-all", "networking/virtual-service-all-v1")
"""What every step stands on: the versions have names, and everybody gets the first."""
JASON = "networking/virtual-service-reviews-test-v2"
PATIENCE_SECONDS = 10.0
_PAUSE_SECONDS = 0.05
_SETTLE_SECONDS = 0.3


def folder() -> Path:
    """The manifests of this version: beside this file where installed, else in the checkout."""
    here = Path(__file__)
    places = (here.parent / "manifests", here.parents[3] / "deploy/bookinfo")
    return next(place for place in places if place.is_dir())


def read(*files: str) -> list[Manifest]:
    """Manifests of the folder, files named without `.yaml`; of two of one object the later one counts."""
    loaded = [one for file in files for one in load([folder() / f"{file}.yaml"]).manifests]
    return list({one.key: one for one in loaded}.values())


class Bookinfo:
    """The four services behind their waypoint, and somebody who looks at the page."""

    def __init__(self, laboratory: Laboratory) -> None:
        """The laboratory is up, and stays the caller's."""
        self.laboratory = laboratory

    @cached_property
    def waypoint(self) -> Pod:
        """The pod in which the waypoint runs."""
        return next(pod for pod in self.laboratory.cluster().pods if is_waypoint(pod))

    def wait_for_waypoint(self) -> None:
        """Until every node sends what calls the services to the waypoint, and that serves."""
        nodes = [node.name for node in self.laboratory.cluster().nodes]
        self.until("every node sends calls to the waypoint", lambda: all(map(self._sends_to_waypoint, nodes)))

    def _sends_to_waypoint(self, node: str) -> bool:
        dump = json.loads(self.laboratory.node_get(node, "/config_dump"))
        return is_attached(dump, NAMESPACE, SERVICES, WAYPOINT)

    def apply(self, *files: str, delete: bool = False) -> None:
        """Apply manifests of the folder, named without `.yaml`; the waypoint has them in force then."""
        self.change(read(*files), delete=delete)

    def change(self, manifests: Sequence[Manifest], *, delete: bool = False) -> None:
        """Apply manifests, or delete them, and wait until the waypoint has taken that over."""
        before = self._known()
        said = self.laboratory.apply_all(manifests, delete=delete)
        if not all(line.endswith(" unchanged") for line in said):
            self.until("the waypoint has taken something over", lambda: self._known() != before)
            self.until("the waypoint has taken all of it over", self._is_settled)

    def _is_settled(self) -> bool:
        """Each object is a file, and the last of them may come a moment later."""
        known = self._known()
        time.sleep(_SETTLE_SECONDS)
        return self._known() == known

    def look(
        self, count: int, *, user: str = "", path: str = PAGE, parallel: int = 4, headers: Sequence[str] = ()
    ) -> tuple[Visit, ...]:
        """Look at a page so often, from the client's pod; headers as `name:value`.

        Raises:
            LaboratoryFailed: the client itself has failed.
        """
        words = module_command("ztunnel.demo.bookinfo.visitor", count, parallel, path, user, *headers)
        ended = self.laboratory.exec(CLIENT, words, timeout=120)
        if ended.returncode:
            raise LaboratoryFailed(f"the client failed: {(ended.stdout + ended.stderr).strip()[-500:]}")
        return parse(ended.stdout.splitlines()[-1])

    def until(self, what: str, holds: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until something holds.

        Raises:
            LaboratoryFailed: it did not, in `seconds`; the message says `what` was waited for.
        """
        deadline = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > deadline:
                raise LaboratoryFailed(f"not within {seconds:.0f} s: {what}")
            time.sleep(_PAUSE_SECONDS)

    def samples(self) -> Samples:
        """The metrics of the waypoint."""
        return parse_samples(self._get(15020, "/metrics"))

    def asked(self, workload: str) -> int:
        """How many requests the pods of a Deployment have logged, but for those of probes."""
        pods = [pod for pod in self.laboratory.cluster().pods if pod.owner == f"deployment/{workload}"]
        logs = "".join(self.laboratory.pod_log(pod.full_name) for pod in pods)
        return sum(" HTTP/1.1" in line and "/health " not in line for line in logs.splitlines())

    def _known(self) -> dict[str, Any]:
        """What the waypoint knows of the world."""
        found: dict[str, Any] = json.loads(self._get(15000, "/config_dump"))
        return {name: known for name, known in found.items() if name != "manifests"}

    def _get(self, port: int, path: str) -> str:
        names, pod = self.laboratory.names, self.waypoint
        return get(names.netns(names.pod(pod.namespace, pod.name)), port, path)[1]


def flagged(place: Bookinfo, flag: str) -> float:
    """How many requests the waypoint has counted with a response flag."""
    return place.samples().total("istio_requests_total", response_flags=flag)
