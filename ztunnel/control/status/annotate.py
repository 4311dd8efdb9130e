"""Writes on pods that they are in the mesh, as their node proxies report it.

A node proxy may change no object of the cluster: it tells us, and is believed about the pods of its own node
alone. The replica that was told writes: a proxy tells one at a time, and again when it has changed. Nothing
is written beside an istiod that is not to be replaced, unless both sign by one root: its proxies call such
pods over HBONE."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final, NamedTuple, Protocol

import trio

from ztunnel.control.status.enrolment import Due, Name, Note, due, is_ours, note
from ztunnel.control.status.standing import MANAGER
from ztunnel.errors import PeerError
from ztunnel.flow.rate import Bucket, Rate, Recent
from ztunnel.kube.call import MERGE, Api
from ztunnel.kube.failure import ApiFailure, Request
from ztunnel.kube.resource import PODS
from ztunnel.rpc.answer import Peer
from ztunnel.rpc.status import Code, RpcError
from ztunnel.state import kube
from ztunnel.telemetry.figures import Figures
from ztunnel.xds.enrolment import MOST_BYTES, NOTED, parse_pods

BETWEEN_SECONDS: Final = 0.05
"""Between two writes: twenty a second, so that a storm of pods does not become one of writes."""
_RETRY_SECONDS: Final = 5.0
KEPT_SECONDS: Final = 60.0
"""So long a pod is waited for that a node proxy knows, and that the API server has not told us of."""
_NODES: Final = 10_000
_RATE: Final = Rate(20, 2, 0)
"""Reports of one node: a proxy sends one a second, while pods come and go."""
_SEND_SECONDS: Final = 10.0

Identify = Callable[[Mapping[str, str], Peer], Awaitable[str]]
"""The node of the node proxy that calls. Raises RpcError."""


class Call(Protocol):
    """The part of `rpc.answer.ServerCall` that is needed."""

    metadata: Mapping[str, str]
    peer: Peer

    def take_messages_of(self, most_bytes: int) -> None: ...

    async def receive(self) -> bytes | None: ...

    async def send(self, message: bytes) -> None: ...


class Pods(Protocol):
    """The pods of the cluster."""

    def pod(self, name: Name) -> kube.Pod | None: ...

    def on_node(self, node: str) -> Iterator[Name]: ...


class _Key(NamedTuple):
    node: str
    pod: Name


@dataclass(frozen=True, slots=True)
class _Waiting:
    due: Due
    until: float


class Annotator:
    """The notes of one cluster; written while `run` runs.

    Attributes:
        quiet: whether nothing is to be written now.
        trouble: why the last one could not be written; empty where it could.
        written: by outcome (`written`, `failed`).
    """

    def __init__(
        self,
        api: Api,
        pods: Callable[[], Pods],
        quiet: Callable[[], bool] = lambda: False,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`tell` is called with the trouble whenever it is another one."""
        self._api, self._pods, self.quiet, self._tell = api, pods, quiet, tell
        self._waiting: dict[_Key, _Waiting] = {}
        self._unseen: dict[_Key, _Waiting] = {}
        """Pods that it was written on, until the API server has told us so."""
        self._woken = trio.Event()
        self._buckets: Recent[str, Bucket] = Recent(_NODES, lambda: Bucket(_RATE, trio.current_time()))
        self.trouble = ""
        self.written: Counter[str] = Counter()

    def register(self, figures: Figures) -> None:
        """Bring the figures to the register."""
        figures.counter(
            "ztunnel_control_annotations_total", "Pods on which enrolment, or its end, was to be written",
            lambda: [((outcome,), count) for outcome, count in self.written.items()], ["outcome"],
        )  # fmt: skip

    def wake(self) -> None:
        """Pods are known that were not."""
        self._woken.set()

    def take(self, node: str, untrusted: bytes) -> None:
        """A node proxy's report.

        Raises:
            RpcError: it cannot be taken, or not now.
        """
        bucket = self._buckets.of(node)
        if bucket.level(trio.current_time()) < 1:
            raise RpcError(
                Code.RESOURCE_EXHAUSTED, f"more than {_RATE.per_second} reports a second of node {node}"
            )
        bucket.take(1, trio.current_time())
        try:
            reported = parse_pods(untrusted)
        except PeerError as error:
            raise RpcError(Code.INVALID_ARGUMENT, str(error)) from error
        pods = self._pods()
        on_node = [pod for name in pods.on_node(node) if (pod := pods.pod(name)) is not None]
        until = trio.current_time() + KEPT_SECONDS
        self._waiting = {key: each for key, each in self._waiting.items() if key.node != node}
        for key, unseen in self._unseen.items():
            if key.node == node:
                self._waiting[key] = _Waiting(replace(unseen.due, enrolled=False), until)
        for name, each in due(on_node, reported).items():
            self._waiting[_Key(node, name)] = _Waiting(each, until)
        self.wake()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            found = self._next()
            if found is None:
                await self._pause()
            else:
                await self._write(*found)

    async def _pause(self) -> None:
        until = min((each.until for each in self._waiting.values()), default=float("inf"))
        with trio.move_on_at(until):
            await self._woken.wait()
        self._woken = trio.Event()

    def _next(self) -> tuple[_Key, Note] | None:
        """What is written next. What need not be written, or cannot be any more, is forgotten."""
        pods, now = self._pods(), trio.current_time()
        self._unseen = {key: each for key, each in self._unseen.items() if each.until > now}
        for key, each in tuple(self._waiting.items()):
            pod = pods.pod(key.pod)
            if now >= each.until or self.quiet():
                del self._waiting[key]
            elif pod is not None and pod.node == key.node:
                made = note(pod, each.due)
                if is_ours(pod):
                    self._unseen.pop(key, None)
                elif key in self._unseen and not each.due.enrolled:
                    continue
                if made is not None:
                    return key, made
                del self._waiting[key]
        return None

    async def _write(self, key: _Key, made: Note) -> None:
        """What fails and may pass is tried again, unless the node proxy says otherwise meanwhile."""
        each = self._waiting.pop(key)
        request = Request("patch", PODS, *key.pod, "status")
        try:
            await self._api.patch(request, made.value, MERGE, {"fieldManager": MANAGER})
        except ApiFailure as failure:
            if failure.code in (404, 409):  # gone, or another pod of that name
                return
            self.written["failed"] += 1
            self._say(str(failure))
            self._waiting.setdefault(key, each)
            await trio.sleep(max(failure.retry_seconds or 0.0, _RETRY_SECONDS))
        else:
            self._say("")
            self.written["written"] += 1
            if made.enrolled:
                self._unseen[key] = replace(each, until=trio.current_time() + KEPT_SECONDS)
            await trio.sleep(BETWEEN_SECONDS)

    def _say(self, trouble: str) -> None:
        if trouble != self.trouble:
            self.trouble = trouble
            self._tell(trouble)


class EnrolmentService:
    """The method that node proxies report by."""

    def __init__(self, annotator: Annotator, identify: Identify) -> None:
        self._annotator, self._identify = annotator, identify

    async def report(self, call: Call) -> None:
        """Handle one call. Raises RpcError for every refusal."""
        node = await self._identify(call.metadata, call.peer)
        call.take_messages_of(MOST_BYTES)
        with trio.move_on_after(_SEND_SECONDS) as waiting:
            untrusted = await call.receive()
        if waiting.cancelled_caught or untrusted is None:
            raise RpcError(Code.INVALID_ARGUMENT, "a call without a report")
        self._annotator.take(node, untrusted)
        with trio.move_on_after(_SEND_SECONDS):
            await call.send(NOTED)
