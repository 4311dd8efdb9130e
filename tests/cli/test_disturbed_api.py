"""`ztunnel control` while the Kubernetes API refuses, asks for patience or is gone: it serves what it knows,
says what is wrong in readiness and metrics, and recovers by itself."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio

from bench.control import TOKEN
from bench.control_api import ApiServer, Refusal
from tests.cli.test_control import Control
from ztunnel.ca.root_maps import KEY
from ztunnel.control.connect import Upstream
from ztunnel.control.fetch import NetworkSessions
from ztunnel.control.source.served import SERVED
from ztunnel.kube.resource import CONFIG_MAPS
from ztunnel.xds.pb.discovery_pb2 import DeltaDiscoveryRequest
from ztunnel.xds.resource import ADDRESS

pytestmark = pytest.mark.timeout(60)

POLICIES = "/apis/security.istio.io/v1/authorizationpolicies"
UID = "Kubernetes//Pod/shop/{}"


def pod(name: str, ip: str) -> dict[str, object]:
    return {
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"nodeName": "n1", "serviceAccountName": name},
        "status": {"podIP": ip, "phase": "Running"},
    }


@dataclass
class ClusterControl(Control):
    """With an API server for its source."""

    api_port: int = 0

    @property
    def flags(self) -> list[str]:
        config = {
            "current-context": "c",
            "users": [{"name": "u", "user": {}}],
            "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{self.api_port}"}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        }
        (self.path / "kubeconfig").write_text(json.dumps(config))
        return [f"--kubeconfig={self.path / 'kubeconfig'}", f"--state-dir={self.path / 'state'}"]


@dataclass
class Scene:
    """An API server, a control plane, and a subscriber of it."""

    api: ApiServer
    control: ClusterControl
    nursery: trio.Nursery
    serving: trio.CancelScope = field(default_factory=trio.CancelScope)
    gone: trio.Event = field(default_factory=trio.Event)

    async def serve(self) -> None:
        """On the port that it had before."""
        self.serving, self.gone = trio.CancelScope(), trio.Event()
        self.control.api_port = await self.nursery.start(self._serve)

    async def _serve(self, *, task_status: trio.TaskStatus[int]) -> None:
        with self.serving:
            async with self.api.served(self.control.api_port) as port:
                task_status.started(port)
                await trio.sleep_forever()
        self.gone.set()

    async def vanish(self) -> None:
        self.serving.cancel()
        await self.gone.wait()

    def upstream(self) -> Upstream:
        maps = self.api.objects(CONFIG_MAPS.path())
        [roots] = {each["data"][KEY] for each in maps if KEY in each.get("data", {})}
        return Upstream("XDS", f"https://127.0.0.1:{self.control.ports[0]}", roots, token=TOKEN)

    async def body(self, wanted: Callable[[str], bool]) -> str:
        """That of readiness, once it is so; it is asked as a kubelet does, which takes 200 for ready."""
        while not wanted(found := await self._body()):  # noqa: ASYNC110 (a process)
            await trio.sleep(0.05)
        return found

    async def _body(self) -> str:
        return await trio.to_thread.run_sync(self.control.get, 2, "/healthz/ready")


@pytest.fixture
def control(tmp_path: Path) -> Iterator[ClusterControl]:
    made = ClusterControl(tmp_path)
    yield made
    if made.process is not None and made.process.poll() is None:
        made.process.kill()
        made.process.wait(10)


@pytest.fixture
async def scene(control: ClusterControl, nursery: trio.Nursery) -> Scene:
    made = Scene(ApiServer({one.kind: one.candidates[0] for one in SERVED}), control, nursery)
    made.api.put(
        "Namespace", {"metadata": {"name": "shop", "labels": {"istio.io/dataplane-mode": "ambient"}}}
    )
    made.api.put("Pod", pod("a", "10.0.0.1"))
    await made.serve()
    await trio.to_thread.run_sync(control.start)
    return made


@asynccontextmanager
async def subscribed(scene: Scene, names: set[str]) -> AsyncIterator[Callable[[], object]]:
    """A node proxy, which is told these at first; what the block gets waits for the next response."""
    async with NetworkSessions(scene.upstream()).open() as (requests, responses):

        async def receive() -> set[str]:
            response = await responses.receive()
            await requests.send(DeltaDiscoveryRequest(type_url=ADDRESS, response_nonce=response.nonce))
            return {one.name for one in response.resources}

        await requests.send(DeltaDiscoveryRequest(type_url=ADDRESS))
        assert await receive() == names
        yield receive


@pytest.mark.parametrize(
    ("refusal", "words"),
    [
        (Refusal(429, "TooManyRequests", 1), "the API server asks for patience (watch pods)"),
        (Refusal(500, "InternalError"), "the API server answers 500 (watch pods)"),
        (Refusal(403, "Forbidden"), "not allowed to watch pods; needs RBAC: watch pods"),
        (Refusal(401, "Unauthorized"), "not known to the API server (watch pods)"),
        (None, "no answer from the API server http://127.0.0.1:{} (watch pods): Error connecting"),
    ],
    ids=["429", "500", "403", "401", "gone"],
)
async def test_it_goes_on_says_so_and_recovers(scene: Scene, refusal: Refusal | None, words: str) -> None:
    async with subscribed(scene, {UID.format("a")}) as receive:
        if refusal is None:
            await scene.vanish()
        else:
            scene.api.refuse = lambda _path: refusal
            scene.api.end_watches()
        said = words.format(scene.control.api_port)
        body = await scene.body(lambda text: said in text)
        assert body.startswith("ready\n")
        await scene.control.reaches('ztunnel_kube_stale{kind="Pod"}', 1)
        assert await trio.to_thread.run_sync(scene.control.figure, 'ztunnel_kube_failures_total{kind="Pod"}')
        async with subscribed(scene, {UID.format("a")}):
            pass  # who comes now is told what is known

        scene.api.put("Pod", pod("b", "10.0.0.2"))
        if refusal is None:
            await scene.serve()
        scene.api.refuse = lambda _path: None
        assert await receive() == {UID.format("b")}
        await scene.body(lambda text: "kubernetes" not in text)
        await scene.control.reaches('ztunnel_kube_stale{kind="Pod"}', 0)


async def test_one_kind_that_is_refused_costs_only_itself(scene: Scene) -> None:
    async with subscribed(scene, {UID.format("a")}) as receive:
        scene.api.refuse = lambda path: Refusal(403, "Forbidden") if path == POLICIES else None
        scene.api.end_watches()
        await scene.body(lambda text: "needs RBAC: watch authorizationpolicies.security.istio.io" in text)
        scene.api.put("Pod", pod("b", "10.0.0.2"))
        assert await receive() == {UID.format("b")}
        await scene.control.reaches('ztunnel_kube_stale{kind="AuthorizationPolicy"}', 1)
        await scene.control.reaches('ztunnel_kube_stale{kind="Pod"}', 0)
