"""Takes a taint off the nodes whose node proxy has become ready.

New nodes may come with it, so that no pod is scheduled there before the mesh is (as Cilium does it with
`node.cilium.io/agent-not-ready`). It is taken away once for each node proxy, and never put back: a node whose
proxy is replaced, or crashes, keeps its pods, which wait."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final, Protocol

import trio

from ztunnel.control.status.standing import MANAGER
from ztunnel.kube.call import MERGE, Api
from ztunnel.kube.failure import ApiFailure, Request
from ztunnel.kube.resource import NODES
from ztunnel.state import kube
from ztunnel.telemetry.figures import Figures

BETWEEN_SECONDS: Final = 0.05
_RETRY_SECONDS: Final = 2.0
_PROXY: Final = {"app.kubernetes.io/name": "ztunnel", "app.kubernetes.io/component": "node"}
_WHOLE_NODES: Final = replace(NODES, metadata_only=False)

Name = tuple[str, str]


class Pods(Protocol):
    """The pods of the cluster."""

    def pod(self, name: Name) -> kube.Pod | None: ...

    def in_namespace(self, namespace: str) -> Iterator[Name]: ...


class Untainting:
    """The taint of one cluster's nodes; taken away while `run` runs, by the one replica that leads.

    Attributes:
        trouble: why the last node could not be changed; empty where it could.
        nodes: by outcome: `changed`, `clean`, `failed`.
    """

    def __init__(
        self,
        api: Api,
        pods: Callable[[], Pods],
        namespace: str,
        key: str,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`namespace` is that of the node proxies, `key` the taint's; `tell` is called with the trouble
        whenever it is another one."""
        self._api, self._pods, self._namespace, self._key, self._tell = api, pods, namespace, key, tell
        self._woken = trio.Event()
        self.trouble = ""
        self.nodes: Counter[str] = Counter()

    def register(self, figures: Figures) -> None:
        """Bring the figures to the register."""
        figures.counter(
            "ztunnel_control_untainted_total",
            "Nodes that were looked at when their node proxy was ready: whether the taint was there",
            lambda: [((outcome,), count) for outcome, count in self.nodes.items()],
            ["outcome"],
        )

    def wake(self) -> None:
        """Pods may be ready that were not."""
        self._woken.set()

    async def run(self) -> None:
        """Until cancelled. Proxies that were ready before are looked at last: they may be thousands."""
        done: set[str] = set()
        before = {pod.meta.uid for pod in self._ready()}
        while True:
            ready = [pod for pod in self._ready() if pod.meta.uid not in done]
            if not ready:
                done &= {pod.meta.uid for pod in self._ready()}
                await self._woken.wait()
                self._woken = trio.Event()
                continue
            pod = min(ready, key=lambda pod: pod.meta.uid in before)
            if await self._clean(pod.node):
                done.add(pod.meta.uid)

    def _ready(self) -> list[kube.Pod]:
        pods = self._pods()
        found = (pods.pod(name) for name in pods.in_namespace(self._namespace))
        return [
            pod
            for pod in found
            if pod is not None and pod.ready and pod.node and _PROXY.items() <= pod.meta.labels.items()
        ]

    async def _clean(self, node: str) -> bool:
        """Whether the node is without the taint now, or is gone. What fails is tried again, later."""
        try:
            found = await self._api.get(_WHOLE_NODES, node)
            changes = without(found, self._key)
            if changes is not None:
                request = Request("patch", _WHOLE_NODES, name=node)
                await self._api.patch(request, changes, MERGE, {"fieldManager": MANAGER})
        except ApiFailure as failure:
            if failure.code == 404:
                return True
            if failure.code != 409:  # else it has changed meanwhile
                self.nodes["failed"] += 1
                self._say(str(failure))
                await trio.sleep(max(failure.retry_seconds or 0.0, _RETRY_SECONDS))
            return False
        self._say("")
        self.nodes["clean" if changes is None else "changed"] += 1
        await trio.sleep(BETWEEN_SECONDS)
        return True

    def _say(self, trouble: str) -> None:
        if trouble != self.trouble:
            self.trouble = trouble
            self._tell(trouble)


def without(node: Mapping[str, Any], key: str) -> dict[str, Any] | None:
    """What to write so that the node has no taint of that key, whatever its value and effect, and only where
    nobody has changed it meanwhile; None where it has none."""
    taints = (node.get("spec") or {}).get("taints") or []
    kept = [one for one in taints if not (isinstance(one, dict) and one.get("key") == key)]
    if len(kept) == len(taints):
        return None
    version = str((node.get("metadata") or {}).get("resourceVersion") or "")
    return {"metadata": {"resourceVersion": version}, "spec": {"taints": kept or None}}
