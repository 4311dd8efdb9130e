"""A signer of the Kubernetes CSR API, for tests: it watches an API server in memory, approves, and signs."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable
from datetime import UTC, datetime

import trio

from tests.kube.fake import FakeServer
from ztunnel.identity import csr
from ztunnel.identity.authority import Authority
from ztunnel.kube.resource import SIGNING_REQUESTS

NAME = "example.com/mesh"


def approve(one: dict) -> None:
    """As a controller does that approves everything."""
    add(one, "Approved", "AutoApproved", "yes")


def add(one: dict, kind: str, reason: str = "", message: str = "") -> None:
    """A condition of that type."""
    condition = {"type": kind, "status": "True", "reason": reason, "message": message}
    one.setdefault("status", {}).setdefault("conditions", []).append(condition)


def sign_with(authority: Authority, change: Callable[[str], str] = lambda pem: pem) -> Callable[[dict], None]:
    """Approve, and sign what is asked for; `change` is what becomes of the certificate."""

    def sign(one: dict) -> None:
        approve(one)
        text = b64decode(one["spec"]["request"]).decode()
        asked = csr.parse(text)
        seconds = float(one["spec"]["expirationSeconds"])
        *chain, _ = authority.sign(text, asked.identity, seconds, datetime.now(UTC))
        one["status"]["certificate"] = b64encode(change("".join(chain)).encode()).decode()

    return sign


class SignerOfTheCluster:
    """Runs beside an API server; `act` is what it does with each new request."""

    def __init__(self, act: Callable[[dict], None]) -> None:
        self.server = FakeServer(SIGNING_REQUESTS)
        self.act = act
        self.seen: list[dict] = []

    @property
    def left(self) -> int:
        """Requests that nobody has taken away."""
        return len(self.server.objects[SIGNING_REQUESTS.path()])

    async def run(self) -> None:
        known: set[str] = set()
        while True:
            for one in list(self.server.objects[SIGNING_REQUESTS.path()].values()):
                if one["metadata"]["name"] not in known:
                    known.add(one["metadata"]["name"])
                    self.seen.append(one)
                    changed = {**one, "metadata": dict(one["metadata"])}
                    self.act(changed)
                    self.server.put(SIGNING_REQUESTS, changed)
            await trio.sleep(0.01)
