"""Tells the control plane which pods of this node are in the mesh by us, so that it writes that on them.

What was told once is told again when it has changed, and now and then: somebody may have taken it off a pod.
A control plane that has no such service, as istiod, is asked again later, and less and less often."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final

import trio

from ztunnel.errors import ConfigError
from ztunnel.pods.hold import Held
from ztunnel.rpc.status import Code, RpcError
from ztunnel.state.world import World
from ztunnel.telemetry.export import Log
from ztunnel.telemetry.readiness import Readiness
from ztunnel.xds.enrolment import EnrolledPod

SETTLE_SECONDS: Final = 1.0
"""Between two reports, however fast pods come and go."""
AGAIN_SECONDS: Final = 300.0
_RETRY_SECONDS: Final = (1.0, 60.0)
_NO_SERVICE_SECONDS: Final = (60.0, 3600.0)
_ENROLMENT: Final = "enrolment on pods"

FORWARDS: Final = (
    "what it forwards for others is left alone (annotation ztunnel.io/forwarding: allow): not all of its "
    "traffic is in the mesh"
)

MACHINE: Final = (
    "a virtual machine is behind it (KubeVirt, interface {}): what that sends is only forwarded, judged by "
    "policy "
    "and not in the mesh"
)

NO_SERVICE: Final = (
    "the control plane does not ask for it: one of ours over a folder has no pods to write on, an istiod has "
    "those in the mesh that are annotated with ambient.istio.io/redirection: enabled, by Istio's CNI agent "
    "or in their template"
)

Report = Callable[[Iterable[EnrolledPod]], Awaitable[None]]
"""Tells the control plane of these pods and no others. Raises RpcError, ConfigError."""


class Announcer:
    """The pods that are to be shown as enrolled; reported while `run` runs.

    Attributes:
        hidden: by uid the pods that are in the mesh and are not shown so, and why.
    """

    def __init__(self, log: Log, readiness: Readiness) -> None:
        self._log, self._readiness = log, readiness
        self._pods: frozenset[EnrolledPod] = frozenset()
        self._changed = trio.Event()
        self._pause = 0.0
        self._trouble = ""
        self._is_alone = False
        self.hidden: dict[str, str] = {}

    def look(self, held: Mapping[str, Held], world: World) -> None:
        """These pods are in the mesh now, by uid. One of which a part goes past it is not shown, and neither
        is one that the kubelet does not know (the laboratory's)."""
        shown, self.hidden = set[EnrolledPod](), {}
        for uid, each in held.items():
            workload = world.workload(uid)
            if workload is not None and workload.forwards:
                self.hidden[uid] = FORWARDS
            elif workload is not None and each.machine:
                self.hidden[uid] = MACHINE.format(each.machine)
            elif workload is not None and each.place.pod:
                shown.add(EnrolledPod(workload.namespace, workload.name, each.place.pod))
        if shown != self._pods:
            self._pods = frozenset(shown)
            self._changed.set()

    def show(self, uid: str) -> dict[str, object]:
        """For the configuration dump."""
        why = self.hidden.get(uid)
        return {} if why is None else {"hidden": why}

    async def run(self, report: Report) -> None:
        """Until cancelled."""
        while True:
            self._changed = trio.Event()
            if await self._tell(report):
                self._pause = 0.0
                await trio.sleep(SETTLE_SECONDS)
                with trio.move_on_after(AGAIN_SECONDS):
                    await self._changed.wait()
            else:
                await trio.sleep(self._pause)

    async def _tell(self, report: Report) -> bool:
        """Whether it was taken."""
        try:
            await report(self._pods)
        except RpcError as error:
            if error.code is Code.UNIMPLEMENTED:
                self._failed("", _NO_SERVICE_SECONDS)
                if not self._is_alone:
                    self._is_alone = True
                    self._log.info("enrolment not reported", reason=NO_SERVICE)
            else:
                self._failed(str(error), _RETRY_SECONDS)
            return False
        except ConfigError as error:
            self._failed(str(error), _RETRY_SECONDS)
            return False
        self._say("")
        return True

    def _failed(self, trouble: str, between: tuple[float, float]) -> None:
        least, most = between
        self._pause = min(max(self._pause * 2, least), most)
        self._say(trouble)

    def _say(self, trouble: str) -> None:
        if trouble and not self._trouble:
            self._log.warn("enrolment not reported", error=trouble)
        self._trouble = trouble
        self._readiness.detail(_ENROLMENT, f"cannot be written on pods: {trouble}" if trouble else "")
