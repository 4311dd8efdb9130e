"""Callers of a control plane for tests: pods, tokens, and an API server that reviews them."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from ipaddress import ip_address

from tests.kube.fake import FakeServer, answer
from ztunnel.model.address import PeerAddress
from ztunnel.rpc.answer import Peer
from ztunnel.state import kube
from ztunnel.state.meta import Meta

REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"
SOURCE = ip_address("10.0.0.7")


def pod(name: str, account: str, node: str, namespace: str = "shop", uid: str = "", phase: str = "Running"):
    meta = Meta(name, namespace, {}, {}, uid=uid or f"uid-{name}")
    return kube.Pod(meta, node, account, False, {}, (), phase, True)


PROXY = pod("ztunnel-1", "ztunnel", "n1", "ztunnel-system")


class Pods:
    """The pods of a cluster."""

    def __init__(self, *pods: kube.Pod) -> None:
        self.all = {(one.meta.namespace, one.meta.name): one for one in pods}

    def pod(self, name: tuple[str, str]) -> kube.Pod | None:
        return self.all.get(name)

    def on_node(self, node: str) -> Iterator[tuple[str, str]]:
        return (name for name, one in self.all.items() if one.node == node)

    def in_namespace(self, namespace: str) -> Iterator[tuple[str, str]]:
        return (name for name in self.all if name[0] == namespace)


def peer(certificate: bytes | None = None, source: object = SOURCE) -> Peer:
    return Peer(PeerAddress(ip_address(str(source)), 4711), certificate)


def token(claims: object = None, *, name: str = "a") -> str:
    """A token as Kubernetes' ones look; what it says of itself is not proved."""

    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    said = {"aud": ["istio-ca"], "exp": 4_000_000_000, "jti": name} if claims is None else claims
    return f"{part({'alg': 'RS256'})}.{part(said)}.c2lnbmF0dXJl"


def status(pod: kube.Pod = PROXY, **changes: object) -> dict[str, object]:
    """What a TokenReview says of the token of a pod."""
    extra = {"pod-name": pod.meta.name, "pod-uid": pod.meta.uid, "node-name": pod.node}
    return {
        "authenticated": True,
        "audiences": ["istio-ca"],
        "user": {
            "username": f"system:serviceaccount:{pod.meta.namespace}:{pod.service_account}",
            "extra": {f"authentication.kubernetes.io/{key}": [value] for key, value in extra.items()},
        },
        **changes,
    }


class Reviewer:
    """An API server that knows some tokens. `fails` is answered in place of every review while it is set."""

    def __init__(self, known: dict[str, dict[str, object]]) -> None:
        self.server = FakeServer()
        self.known = known
        self.fails = None
        self.asked: list[dict[str, object]] = []
        self.server.faults.append(self._review)

    def _review(self, request):
        if request.url.path != REVIEWS:
            return None
        spec = json.loads(request.content)["spec"]
        self.asked.append(spec)
        if self.fails is not None:
            if isinstance(self.fails, Exception):
                raise self.fails
            return self.fails
        unknown = {"authenticated": False, "error": "[invalid bearer token]"}
        return answer(201, {"kind": "TokenReview", "status": self.known.get(spec["token"], unknown)})
