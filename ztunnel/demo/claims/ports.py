"""Ports are counted as without a mesh: for each destination, and the server's pod needs none of its own."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ztunnel.demo.claims.claim import Claim, Findings
from ztunnel.demo.claims.shop import Shop
from ztunnel.demo.command import module_command
from ztunnel.demo.failure import LaboratoryFailed

_RANGE = "net.ipv4.ip_local_port_range"
_FIRST, _PORTS = 40000, 100
_CALLS, _AT_ONCE = 1000, 8
_CLIENT = "load"
_WAYS = {"tunnelled": "orders-2", "direct": "orders-1", "out of the mesh": "client"}
_SECONDS = 30.0


def _measure(shop: Shop, findings: Findings) -> None:
    with _few_ports(shop, {_CLIENT, *_WAYS.values()}):
        for name, pod in _WAYS.items():
            said = _call(shop, pod)
            answered, errors = sum(said["answers"].values()), said["errors"]
            failed = ", ".join(f"{count} {error}" for error, count in sorted(errors.items()))
            rate = f"{_CALLS / said['seconds']:.0f} a second, the slowest {said['slowest'] * 1000:.0f} ms"
            text = f"{name}: {answered} of {_CALLS} calls answered{failed and f' ({failed})'}, {rate}"
            findings.note(text, answered == _CALLS and not errors)


def _call(shop: Shop, pod: str) -> dict[str, Any]:
    """Calls from one pod to another, each on a connection of its own. Raises LaboratoryFailed."""
    to = shop.pod(pod)
    words = module_command("ztunnel.demo.claims.load", to.ip, to.port, _AT_ONCE, _CALLS)
    try:
        done = shop.laboratory.exec(_CLIENT, words, timeout=_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise LaboratoryFailed(f"{_CALLS} calls to {pod} were not over in {_SECONDS:.0f} s") from error
    if done.returncode:
        raise LaboratoryFailed(f"calls to {pod}: {done.stderr}")
    said: dict[str, Any] = json.loads(done.stdout)
    return said


@contextmanager
def _few_ports(shop: Shop, pods: set[str]) -> Iterator[None]:
    """These pods have a hundred local ports for the length of the block."""
    before: dict[str, str] = {}
    try:
        for pod in sorted(pods):
            with shop.network_of(pod) as network:
                before[pod] = network.read_sysctl(_RANGE)
                network.write_sysctl(_RANGE, f"{_FIRST} {_FIRST + _PORTS - 1}")
        yield
    finally:
        for pod, value in before.items():
            with shop.network_of(pod) as network:
                network.write_sysctl(_RANGE, value)


CLAIM = Claim(
    12,
    "Ports do not run out: a hundred of them carry a thousand calls",
    f"{_CALLS} calls each way, {_AT_ONCE} at once, from a pod with {_PORTS} local ports to one with as few",
    _measure,
)
